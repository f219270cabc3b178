//! What happens to a run after it is closed, through the built binary: pushed, read back, two days pass, deleted; and all
//! that can go wrong on the way. Time is a file (`FLUXLINE_TEST_CLOCK`), so that days pass in a moment.

#[path = "keep/support.rs"]
#[allow(dead_code)]
mod support;

use fluxline_tests::{check, complaint, folder, json, python};
use serde_json::{Value, json as object};
use std::fs;
use std::os::unix::fs::FileExt;
use support::*;

#[test]
fn a_run_goes_its_whole_way() {
    let place = Place::new("whole-way", "delete_percent = 0.0\n");
    let hook = place.folder.join("hook");
    // Fails twice, then keeps what it was given.
    let script = format!(
        "#!/bin/sh\necho x >> {0}/tries\n[ $(wc -l < {0}/tries) -gt 2 ] || exit 3\ncp \"$1\" \"$2\" {0}/\n",
        place.folder.display()
    );
    fs::write(&hook, script).expect("a hook");
    let export = place.folder.join("export");
    place.configure(&format!(
        "[access]\nexport = \"{}\"\n[announce]\nfolder = \"{}\"\nhook = [\"sh\", \"{}\", \"{{scicat}}\", \"{{icat}}\"]\n\
         [announce.fields]\ncontactEmail = \"somebody@example.org\"\n",
        export.display(),
        place.folder.join("told").display(),
        hook.display()
    ));
    let server = place.serve();
    let run = record(&server, "first", 20);
    assert_eq!(run["summary"]["state"], "complete");
    let verified = server.wait("/api/v1/runs/first", |run| run["store_state"] == "verified");
    assert_eq!(verified["copy"], place.central.display().to_string());
    place.copy_is_right("first");
    let here = place.run_folder("first");
    let relative = here
        .strip_prefix(place.store())
        .expect("a run of the store")
        .to_path_buf();
    let exported = export.join(&relative);
    until("the export", || exported.join("run.json").exists());
    assert!(
        names(&exported)
            .iter()
            .all(|name| !name.starts_with('.') && name != "state.jsonl"),
        "{:?}",
        names(&exported)
    );
    // The hook is tried again after its back-off; time for that is a matter of the clock.
    let mut told = Value::Null;
    until("the hook", || {
        place.pass(10);
        let read = fs::read(place.folder.join("first.scicat.json")).ok();
        told = read
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        !told.is_null()
    });
    assert_eq!(told["dataset"]["contactEmail"], "somebody@example.org");
    assert_eq!(
        told["dataset"]["sourceFolder"],
        place.central.join(&relative).display().to_string()
    );
    // Almost two days: everything is here, however full the store is said to be.
    place.pass(47 * 3600);
    let status = server.wait("/api/v1/status", |status| status["store"]["keep"]["level"] != "normal");
    assert_eq!(status["store"]["keep"]["runs"]["deleted"]["runs"], 0, "{status}");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(server.get("/api/v1/runs/first")["store_state"], "verified");
    place.pass(3600);
    let deleted = server.wait("/api/v1/runs/first", |run| run["store_state"] == "deleted");
    assert_eq!(deleted["record"]["id"], "first");
    let states = states(&here);
    assert_eq!(
        states,
        [
            "closed",
            "pushed",
            "verified",
            "announced",
            "verified",
            "safe_to_delete",
            "deleted"
        ],
        "read back a second time before it was safe"
    );
    until("the files to go", || names(&here) == ["run.json", "state.jsonl"]);
    assert!(!exported.exists());
    place.copy_exists("first");
    let (status, gone) = server.try_get("/api/v1/runs/first/frames/0.npy");
    assert_eq!((status, &gone["error"]), (410, &object!("deleted")), "{gone}");
    // The catalogue is told when the last file is gone, and the metrics after it.
    let query = "/api/v1/runs?query=life:deleted%20technique=diffraction";
    let listed = server.wait(query, |list| list["total"] == 1);
    assert_eq!(listed["runs"][0]["id"], "first");
    until("the metrics", || {
        let metrics = server.text("/metrics");
        metrics.contains("fluxline_store_deleted_runs_total 1")
            && metrics.contains("fluxline_store_runs{state=\"deleted\"} 1")
    });
}

#[test]
fn the_central_store_is_away_for_two_days_and_nothing_unverified_is_touched() {
    // Room for three runs of 41 MB below 95 %.
    let place = Place::new("away", "capacity_gb = 0.15\n");
    place.configure("");
    let server = place.serve();
    record(&server, "before", 20);
    server.wait("/api/v1/runs/before", |run| run["store_state"] == "verified");
    let gone = place.folder.join("gone");
    fs::rename(&place.central, &gone).expect("the central store goes away");
    record(&server, "r1", 20);
    record(&server, "r2", 20);
    let request = object!({ "name": "r3", "frames_expected": 20 });
    let (status, refused) = server.post("/api/v1/runs", &request);
    assert_eq!((status, &refused["error"]), (507, &object!("store_full")), "{refused}");
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|text| text.contains("not safe to delete")),
        "{refused}"
    );
    let told = server.wait("/api/v1/status", |status| {
        let push = &status["store"]["keep"]["push"];
        let tried = push["error"]
            .as_str()
            .is_some_and(|text| text.contains("is tried again"));
        tried && push["waiting_runs"] == 2
    });
    assert!(
        told["store"]["keep"]["forecast"]["hours_left"].as_f64().is_some(),
        "{told}"
    );
    // Two days pass. One run has a verified copy, which nobody can look at now: nothing goes.
    place.pass(49 * 3600);
    std::thread::sleep(std::time::Duration::from_millis(2500));
    let (status, _) = server.post("/api/v1/runs", &request);
    assert_eq!(status, 507);
    for run in ["before", "r1", "r2"] {
        assert!(
            names(&place.run_folder(run)).len() > 3,
            "{run}: {:?}",
            names(&place.run_folder(run))
        );
    }
    fs::rename(&gone, &place.central).expect("the central store comes back");
    place.pass(400);
    server.wait("/api/v1/runs/r2", |run| run["copy"].is_string());
    for run in ["r1", "r2"] {
        place.copy_is_right(run);
    }
    // Old enough and verified now: what must go goes, and runs are armed again.
    until("room", || server.post("/api/v1/runs", &request).0 == 201);
    assert_eq!(
        server.get("/api/v1/runs/before")["store_state"],
        "deleted",
        "the oldest goes first"
    );
    server.wait("/api/v1/runs/r3", |run| run["copy"].is_string());
}

#[test]
fn another_folder_in_place_of_the_mount_is_not_taken_for_it() {
    let place = Place::new("mount", "");
    place.configure("");
    place.record_once("one");
    json(&place.store_command(&["push"]));
    place.copy_is_right("one");
    // The mount is gone and its mount point is there.
    fs::rename(&place.central, place.folder.join("gone")).expect("renamed");
    fs::create_dir(&place.central).expect("an empty mount point");
    place.record_once("two");
    let (code, said) = complaint(&place.store_command(&["push"]));
    assert!(code == 1 && said.contains("is it mounted?"), "{code} {said}");
    assert!(names(&place.central).is_empty());
    // On the store's own disk nothing is a copy.
    place.configure_with("same_file_system = false\n", "");
    fs::remove_dir(&place.central).expect("removed");
    fs::rename(place.folder.join("gone"), &place.central).expect("renamed");
    let (_, said) = complaint(&place.store_command(&["push"]));
    assert!(said.contains("same file system"), "{said}");
}

#[test]
fn a_push_goes_on_where_it_was_cut_off() {
    let place = Place::new("cut", "");
    place.configure_with("same_file_system = true\nrate_mb_s = 5.0\n", "");
    place.record_with("big", 30, "compress = false\n");
    let here = place.run_folder("big");
    let file = here.join("big_data_000001.h5");
    let bytes = fs::metadata(&file).expect("a data file").len();
    let part = place.copy_of(&here).join("big_data_000001.h5.part");
    let (mut arrived, mut kills) = (0, 0);
    for milliseconds in [60, 25, 43, 31, 52] {
        let mut child = place.spawn_store(&["push"]);
        until("more of it to arrive", || {
            fs::metadata(&part).is_ok_and(|data| data.len() > arrived)
        });
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        child.kill().expect("killed");
        child.wait().expect("ended");
        let now = fs::metadata(&part).map_or(arrived, |data| data.len());
        assert!(now >= arrived, "begun anew: {now} of {bytes} after {arrived}");
        (arrived, kills) = (now, kills + 1);
        assert!(!place.copy_of(&here).join("run.json").exists());
    }
    assert!(arrived > 0 && kills == 5, "{arrived} of {bytes}");
    // The server forgot what it had not synced: other bytes in the middle.
    place.configure("");
    if let Ok(copy) = fs::OpenOptions::new().write(true).open(&part) {
        copy.write_all_at(&[0x55; 4096], arrived / 2).expect("written");
    }
    let (code, said) = complaint(&place.store_command(&["push"]));
    assert!(code == 1 && said.contains("not what was sent"), "{said}");
    assert_eq!(states(&here).last().map(String::as_str), Some("closed"));
    let pushed = json(&place.store_command(&["push"]));
    assert_eq!(pushed["verified"].as_array().map(Vec::len), Some(1), "{pushed}");
    place.copy_is_right("big");
}

#[test]
fn bits_that_flip_are_found_on_both_sides() {
    let place = Place::new("flips", "");
    place.configure("");
    for run in ["one", "two"] {
        place.record_once(run);
    }
    let here = place.run_folder("one");
    // A file that is not what was written is neither sent nor overwritten by anything.
    let two = place.run_folder("two").join("two_data_000001.h5");
    flip(&two);
    let (code, said) = complaint(&place.store_command(&["push"]));
    assert!(
        code == 1 && said.contains("two_data_000001.h5 is not what was written"),
        "{said}"
    );
    assert!(states(&place.run_folder("two")).contains(&"damaged".to_string()));
    place.copy_is_right("one");
    assert!(!place.copy_of(&place.run_folder("two")).join("run.json").exists());
    // In the copy: found when it is read again, sent again.
    let copy = place.copy_of(&here).join("one_data_000001.h5");
    flip(&copy);
    let (code, said) = complaint(&place.store_command(&["verify", "one"]));
    assert!(code == 1 && said.contains("copies are not what was sent"), "{said}");
    json(&place.store_command(&["push"]));
    place.copy_is_right("one");
    let again = json(&place.store_command(&["verify"]));
    assert_eq!(again["verified"].as_array().map(Vec::len), Some(1), "{again}");
    // Here, with a verified copy: repaired.
    for file in ["one_data_000001.h5", "one_master.h5"] {
        flip(&here.join(file));
    }
    fs::remove_file(here.join("one_data_000001.h5")).expect("lost altogether");
    let repaired = json(&place.store_command(&["scrub", "one"]));
    assert_eq!(
        repaired["runs"][0]["files"]["repaired"].as_array().map(Vec::len),
        Some(2),
        "{repaired}"
    );
    place.copy_is_right("one");
    assert_eq!(states(&here).last().map(String::as_str), Some("repaired"));
    // Once a day, and no more often.
    place.pass(25 * 3600);
    let daily = place.store_command(&["scrub"]);
    assert_eq!(
        daily.status.code(),
        Some(1),
        "two is damaged, and said to be every time"
    );
    let daily: Value = serde_json::from_slice(&daily.stdout).expect("JSON");
    assert_eq!(daily["runs"].as_array().map(Vec::len), Some(2), "{daily}");
    assert_eq!(json(&place.store_command(&["scrub"]))["runs"], object!([]));
    // Two days later the damaged one is still here.
    place.pass(72 * 3600);
    let plan = json(&place.store_command(&["gc", "--dry-run"]));
    assert_eq!(
        (&plan["deleted"], &plan["plan"]["unsafe_runs"]),
        (&object!([]), &object!(2)),
        "{plan}"
    );
    json(&place.store_command(&["gc"]));
    assert!(two.exists());
}

#[test]
fn a_bucket_that_is_busy_hangs_and_lies_gets_the_right_bytes_in_the_end() {
    let Some(s3) = S3::start("a_bucket_that_is_busy_hangs_and_lies_gets_the_right_bytes_in_the_end") else {
        return;
    };
    let place = Place::new("s3", "");
    let keys = place.folder.join("keys.toml");
    fs::write(&keys, "access_key_id = \"a\"\nsecret_access_key = \"b\"\n").expect("keys");
    let configure = |timeout_s: f64| {
        place.push_to(&format!(
            "to = \"s3://central/beamline\"\nendpoint = \"{}\"\ncredentials = \"{}\"\npart_mib = 5\ntimeout_s = {timeout_s:?}\n",
            s3.url,
            keys.display()
        ));
    };
    configure(60.0);
    place.record_with("one", 30, "compress = false\n");
    let here = place.run_folder("one");
    for (mode, says) in [
        ("busy", "is tried again"),
        ("hang", "is tried again"),
        ("lie", ""),
        ("flip", "not what was sent"),
    ] {
        s3.mode(mode);
        // Nothing else is to be given up on a machine that is busy.
        configure(if mode == "hang" { 1.5 } else { 60.0 });
        let (code, said) = complaint(&place.store_command(&["push"]));
        assert!(code == 1 && said.contains(says), "{mode}: {said}");
        assert!(!states(&here).contains(&"verified".to_string()), "{mode}");
    }
    // Cut off between parts: the next try sends the rest only.
    s3.mode("cut 6");
    complaint(&place.store_command(&["push"]));
    let uploads = place.store().join(".fluxline/uploads");
    let noted: Vec<Value> = names(&uploads)
        .iter()
        .filter_map(|name| serde_json::from_slice(&fs::read(uploads.join(name)).ok()?).ok())
        .collect();
    assert!(
        noted
            .iter()
            .any(|upload| upload["parts"].as_array().is_some_and(|parts| !parts.is_empty())),
        "{noted:?}"
    );
    s3.mode("ok");
    json(&place.store_command(&["push"]));
    assert_eq!(states(&here).last().map(String::as_str), Some("verified"));
    assert!(names(&uploads).is_empty(), "{:?}", names(&uploads));
    for file in names(&here).iter().filter(|name| *name != "state.jsonl") {
        let key = format!("/central/beamline/{}/{file}", place.relative(&here));
        assert!(s3.get(&key) == fs::read(here.join(file)).expect(file), "{file}");
    }
    // The service loses an object; the next reading says so, and it is sent again.
    s3.delete(&format!(
        "/central/beamline/{}/one_data_000001.h5",
        place.relative(&here)
    ));
    complaint(&place.store_command(&["verify"]));
    json(&place.store_command(&["push"]));
    json(&place.store_command(&["verify"]));
}

/// The export shows closed runs only, as the proposal's own; a repaired file takes the place of the damaged one there, too.
#[test]
fn the_export_shows_closed_runs_to_those_who_may_read_them() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let place = Place::new("export", "");
    // Only root gives files away; numbers, for users whom this machine does not know.
    let root = fs::metadata(&place.folder).expect("a folder").uid() == 0;
    let owner = if root {
        "owner = \"54321\"\ngroup = \"54322\"\n"
    } else {
        ""
    };
    if !root {
        eprintln!("SKIPPED the owner's part of the_export_shows_closed_runs_to_those_who_may_read_them: not root");
    }
    place.configure(&format!("[access]\nexport = \".export\"\n{owner}"));
    let server = place.serve();
    record(&server, "first", 5);
    let relative = place.relative(&place.run_folder("first"));
    let exported = place.store().join(".export").join(&relative);
    until("the export", || exported.join("run.json").exists());
    // A run that records is not there, and one that is closed is there only as it was closed.
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "second", "frames_expected": 30 }));
    assert_eq!(status, 201, "{armed}");
    let day = exported.parent().expect("a day").to_path_buf();
    until("the second run", || {
        let shown = names(&day).contains(&"second".to_string());
        let closed = place.run_folder("second").join("run.json").exists();
        assert!(closed || !shown, "a run that records is shown");
        day.join("second/run.json").exists()
    });
    for run in ["first", "second"] {
        let (here, there) = (place.run_folder(run), day.join(run));
        let mut files = names(&there);
        files.sort();
        let mut listed = names(&here);
        listed.retain(|name| name != "state.jsonl");
        listed.sort();
        assert_eq!(files, listed, "{run}");
        for file in &files {
            let (ours, theirs) = (fs::metadata(here.join(file)), fs::metadata(there.join(file)));
            let (ours, theirs) = (ours.expect("a file"), theirs.expect("a file"));
            assert_eq!(ours.ino(), theirs.ino(), "{run} {file}");
            if root {
                let found = (theirs.uid(), theirs.gid(), theirs.permissions().mode() & 0o7777);
                assert_eq!(found, (54321, 54322, 0o640), "{run} {file}");
            }
        }
        if root {
            let found = fs::metadata(&there).expect("a folder");
            let found = (found.uid(), found.gid(), found.permissions().mode() & 0o7777);
            assert_eq!(found, (54321, 54322, 0o750), "{run}");
        }
    }
    server.wait("/api/v1/runs/first", |run| run["store_state"] == "verified");
    drop(server);
    let file = "first_data_000001.h5";
    let good = fs::read(exported.join(file)).expect("a file");
    flip(&exported.join(file));
    json(&place.store_command(&["scrub", "first"]));
    assert!(
        fs::read(exported.join(file)).expect("a file") == good,
        "the export still has the damaged file"
    );
    if root {
        assert_eq!(fs::metadata(exported.join(file)).expect("a file").uid(), 54321);
    }
}

/// A run that cannot be shown in the export is tried again, after a wait as with every other failure, and also at the next start.
#[test]
fn an_export_that_fails_is_tried_again() {
    let place = Place::new("export-again", "");
    let export = place.folder.join("export");
    // A file where the export's folder should be: nothing can be made in it, whoever asks.
    fs::write(&export, "in the way").expect("a file");
    place.configure(&format!("[access]\nexport = \"{}\"\n", export.display()));
    let tries = |server: &fluxline_tests::Server, outcome: &str| {
        let metrics = server.text("/metrics");
        let name = format!("fluxline_export_total{{outcome=\"{outcome}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|count| count.parse::<u64>().ok()).expect("a count")
    };
    let server = place.serve();
    record(&server, "first", 5);
    until("a first try", || tries(&server, "failed") > 0);
    until("another one, when its time has come", || {
        place.pass(400);
        tries(&server, "failed") > 1
    });
    // It is in nobody's way.
    server.wait("/api/v1/runs/first", |run| run["store_state"] == "verified");
    assert_eq!(tries(&server, "done"), 0);
    drop(server);
    fs::remove_file(&export).expect("removed");
    let server = place.serve();
    let shown = export.join(place.relative(&place.run_folder("first")));
    until("the export", || shown.join("run.json").exists());
    until("the count", || tries(&server, "done") == 1);
    // What goes wrong for a while is made good without a start, too.
    fs::remove_dir_all(&export).expect("removed");
    fs::write(&export, "in the way").expect("a file");
    record(&server, "second", 5);
    until("a try", || tries(&server, "failed") > 0);
    fs::remove_file(&export).expect("removed");
    let shown = export.join(place.relative(&place.run_folder("second")));
    until("the export", || {
        place.pass(400);
        shown.join("run.json").exists()
    });
}

#[test]
fn what_the_facility_is_told_is_what_its_own_programs_take() {
    let Some(python) = python("what_the_facility_is_told_is_what_its_own_programs_take") else {
        return;
    };
    let place = Place::new("told", "");
    place.configure(&format!(
        "[announce]\nfolder = \"{}\"\n[announce.fields]\ncontactEmail = \"somebody@example.org\"\n",
        place.folder.join("told").display()
    ));
    let server = place.serve();
    let metadata = object!({ "name": "told", "frames_expected": 5, "sample": "salt & <pepper>", "metadata": { "energy_kev": "12.4" } });
    assert_eq!(server.post("/api/v1/runs", &metadata).0, 201);
    server.wait("/api/v1/runs/told", |run| run["store_state"] == "verified");
    let told = place
        .folder
        .join("told")
        .join(place.relative(&place.run_folder("told")));
    let (scicat, icat) = (
        format!("{}.scicat.json", told.display()),
        format!("{}.icat.xml", told.display()),
    );
    until("the payloads", || std::path::Path::new(&icat).exists());
    let run_json = place.run_folder("told").join("run.json").display().to_string();
    check(&python, "announced.py", &[&scicat, &icat, &run_json]);
}

#[test]
fn hundred_thousands_of_runs_are_found_at_once() {
    let place = Place::new("many", "");
    // Nowhere to push to: their copies are not there to be looked at.
    place.push_to("");
    let many = many::Many::make(&place);
    many.check(&place);
}

#[path = "keep/many.rs"]
mod many;

#[test]
fn the_command_line_says_what_is_wrong() {
    let folder = folder("store-wrong");
    let path = folder.join("fluxline.toml");
    for (section, says) in [
        ("[push]\nto = \"central\"\n", "push.to = \"central\": the absolute path"),
        (
            "[retention]\nurgent_percent = 50.0\n",
            "retention.urgent_percent = 50: allowed is 70 to 100",
        ),
        ("[access]\ngroup = \"root\"\n", "runs never belong to root"),
        ("[announce]\nhook = [\"true\"]\n", "announce.folder"),
        ("[push]\nspeed = 1\n", "unknown field `speed`"),
    ] {
        fs::write(&path, configuration(&folder.join("store"), "", section)).expect("a configuration");
        let (code, said) = complaint(&fluxline_tests::fluxline(&[
            "store",
            "status",
            "--config",
            &path.display().to_string(),
        ]));
        assert!(code == 2 && said.contains(says), "{code} {said}");
    }
}
