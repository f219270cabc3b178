//! A closed run answers under the same addresses as one in memory, and says the same.

use fluxline_tests::{Server, check, folder, python};
use serde_json::{Value, json as object};
use std::path::{Path, PathBuf};

fn configuration(folder: &Path, source: &str, recipes: &str) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\n{source}[store]\npath = \"{}\"\n\
         [feedback]\nlisten = \"127.0.0.1:0\"\n{recipes}",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

/// Arms a run and waits for its end.
fn run(server: &Server, request: &Value) -> Value {
    let (status, armed) = server.post("/api/v1/runs", request);
    assert_eq!(status, 201, "{armed}");
    let path = format!("/api/v1/runs/{}", armed["id"].as_str().expect("an id"));
    server.wait(&path, |run| !run["summary"].is_null())
}

const POWDER: &str = "[recipe.powder]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"azimuthal\"]\n\
                      [recipe.powder.azimuthal]\nbins = 300\n";
const FRAMES: &str = "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 200\ncolumns = 300\nframes = 40\nrate_hz = 200.0\n\
                      distinct = 8\n[source.faults]\ndrop = 0.1\nseed = 3\n";

#[test]
fn a_closed_run_says_the_same_as_it_did_in_memory() {
    let folder = folder("stored");
    let masked: Vec<u8> = (0..200 * 300).map(|pixel| u8::from(pixel / 300 < 70)).collect();
    let mask = pipeline::feedback::pictures::npy("|u1", &[200, 300], &masked);
    std::fs::write(folder.join("mask.npy"), mask).expect("a mask");
    let recipe = format!("{POWDER}[recipe.powder.correct]\nmask = \"mask.npy\"\n");
    // Slowly: values are told while it records.
    let slowly = FRAMES.replace("rate_hz = 200.0", "rate_hz = 5.0");
    let server = Server::start(&configuration(&folder, &slowly, &recipe));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "first", "frames_expected": 40 }));
    assert_eq!(status, 201, "{armed}");
    let values = object!({ "frame_numbers": [3, 4], "values": { "i0": [1.5, 2.5] }, "units": { "i0": "A" } });
    let (status, taken) = server.post("/api/v1/runs/first/frame-metadata", &values);
    assert_eq!(status, 200, "{taken}");
    let in_memory = server.wait("/api/v1/runs/first", |run| !run["summary"].is_null());
    let asked = [
        "ledger",
        "ledger?state=lost",
        "ledger?first=3&limit=2",
        "profiles/latest",
        "profiles/sum",
        "frames/latest.json",
    ];
    let ask = || asked.map(|what| server.get(&format!("/api/v1/runs/first/{what}")));
    let drawn = ["mask.npy", "frames/latest.png", "frames/latest.png?max_pixels=4000"];
    let draw = || drawn.map(|what| server.bytes(&format!("/api/v1/runs/first/{what}")));
    let (before, pictures) = (ask(), draw());
    run(&server, &object!({ "name": "second", "frames_expected": 4 }));
    let closed = server.get("/api/v1/runs/first");
    assert_eq!(
        (
            &closed["state"],
            &closed["frames"],
            &closed["outcomes"],
            &closed["summary"]["latency_us"]
        ),
        (
            &in_memory["state"],
            &in_memory["frames"],
            &in_memory["outcomes"],
            &in_memory["summary"]["latency_us"]
        )
    );
    for (what, (before, after)) in asked.iter().zip(before.iter().zip(&ask())) {
        assert_eq!(before, after, "{what}");
    }
    assert_eq!(before[2]["entries"][0]["metadata"]["i0"], 1.5, "{}", before[2]);
    for (what, (before, after)) in drawn.iter().zip(pictures.iter().zip(&draw())) {
        assert!(before == after, "{what}");
    }
    let curves = closed["datasets"].as_array().expect("datasets").iter();
    let mut curves = curves.filter(|dataset| dataset["path"] == "/entry/results/intensity/intensity");
    assert_eq!(curves.next().expect("a curve")["shape"][1], 300);
    let lost = before[1]["entries"][0]["frame_number"].as_u64().expect("a lost frame");
    let (status, error) = server.try_get(&format!("/api/v1/runs/first/profiles/{lost}"));
    assert_eq!((status, &error["error"]), (404, &object!("not_found")), "{error}");
    assert_eq!(server.try_get("/api/v1/runs/first/profiles/4000").0, 404);
    assert_eq!(server.try_get("/api/v1/runs/first/profiles/none").0, 400);
    let events = server.text("/api/v1/runs/first/events");
    for event in ["armed", "file_closed", "end"] {
        assert!(events.contains(&format!("event: {event}\n")), "no {event} in {events}");
    }
    assert_eq!(server.try_get("/api/v1/runs/third/ledger").0, 404);
}

#[test]
fn what_was_lost_is_lost_when_a_run_is_reprocessed() {
    let folder = folder("stored-lost");
    let server = Server::start(&configuration(&folder, FRAMES, POWDER));
    let first = run(&server, &object!({ "name": "first" }));
    let (status, again) = server.post("/api/v1/runs/first/reprocess", &object!({ "name": "again" }));
    assert_eq!(status, 201, "{again}");
    let again = server.wait("/api/v1/runs/again", |run| !run["summary"].is_null());
    assert!(first["frames"]["lost"].as_u64() > Some(0), "{first}");
    let settled = ["expected", "complete", "lost"];
    assert_eq!(
        settled.map(|state| &first["frames"][state]),
        settled.map(|state| &again["frames"][state])
    );
    // Not as a frame without counts, and no other frame in its place.
    let of = |run: &str| {
        let ledger = server.get(&format!("/api/v1/runs/{run}/ledger?limit=1000"));
        let entries = ledger["entries"].as_array().expect("entries").iter();
        entries.map(|entry| entry["state"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(of("first"), of("again"));
    let sums = ["first", "again"].map(|run| server.get(&format!("/api/v1/runs/{run}/profiles/sum")));
    assert_eq!(sums[0]["frames_used"], first["frames"]["complete"]);
    assert_eq!(sums[0]["frames_used"], sums[1]["frames_used"]);
    // By the geometry that the source tells, and then by the one of the stored run.
    assert_eq!(sums[0]["axis"], sums[1]["axis"]);
    let values = sums.each_ref().map(|sum| sum["values"].as_array().expect("values"));
    for (one, other) in values[0].iter().zip(values[1]) {
        let (one, other) = (one.as_f64(), other.as_f64());
        let apart = one
            .zip(other)
            .map_or(0.0, |(one, other)| (one - other).abs() / one.abs().max(1e-9));
        assert!(one.is_some() == other.is_some() && apart < 1e-6, "{one:?} {other:?}");
    }
}

#[test]
fn slices_of_a_closed_run_are_those_that_it_ended_with() {
    let folder = folder("stored-slices");
    let source =
        "scene = \"tomography\"\nrows = 20\ncolumns = 64\nframes = 60\nrate_hz = 0.0\nrotation_axis_px = 32.0\n";
    let recipe = "[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n";
    let server = Server::start(&configuration(&folder, source, recipe));
    run(&server, &object!({ "name": "first" }));
    let slices = server.get("/api/v1/runs/first/slices");
    let name = slices["slices"][0]["name"].as_str().expect("a slice").to_string();
    let pixels = server.bytes(&format!("/api/v1/runs/first/slices/{name}.npy"));
    run(&server, &object!({ "name": "second" }));
    let closed = server.get("/api/v1/runs/first/slices");
    for key in ["name", "shape", "unit", "frames_used", "frames_expected"] {
        let of = |list: &Value| {
            list["slices"]
                .as_array()
                .map(|s| s.iter().map(|s| s[key].clone()).collect::<Vec<_>>())
        };
        let sorted = |list: &Value| {
            let mut values: Vec<String> = of(list).unwrap_or_default().iter().map(Value::to_string).collect();
            values.sort();
            values
        };
        assert_eq!(sorted(&slices), sorted(&closed), "{key}");
    }
    assert!(pixels == server.bytes(&format!("/api/v1/runs/first/slices/{name}.npy")));
    assert!(
        server
            .bytes(&format!("/api/v1/runs/first/slices/{name}.png"))
            .starts_with(b"\x89PNG")
    );
    assert_eq!(server.try_get("/api/v1/runs/first/slices/none.npy").0, 404);
    // A smaller one has the means of its blocks.
    let values = |file: &[u8], shape: [usize; 2]| {
        let header = 10 + usize::from(u16::from_le_bytes([file[8], file[9]]));
        let told = String::from_utf8_lossy(&file[..header]).replace(' ', "");
        assert!(
            told.contains(&format!("({},{},)", shape[0], shape[1])),
            "{told} {shape:?}"
        );
        let numbers = file[header..]
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")));
        numbers.map(f64::from).collect::<Vec<_>>()
    };
    let shape = [0, 1].map(|axis| slices["slices"][0]["shape"][axis].as_u64().expect("a size") as usize);
    let small = shape.map(|length| length.div_ceil(3));
    let path = format!(
        "/api/v1/runs/first/slices/{name}.npy?max_pixels={}",
        small[0] * small[1]
    );
    let (all, few) = (values(&pixels, shape), values(&server.bytes(&path), small));
    for (index, mean) in few.iter().enumerate() {
        let (rows, columns) = (index / small[1] * 3, index % small[1] * 3);
        let block =
            (rows..shape[0].min(rows + 3)).flat_map(|r| (columns..shape[1].min(columns + 3)).map(move |c| (r, c)));
        let block: Vec<f64> = block.map(|(row, column)| all[row * shape[1] + column]).collect();
        let expected = block.iter().sum::<f64>() / block.len() as f64;
        assert!(
            (mean - expected).abs() <= 1e-5 * expected.abs().max(1e-3),
            "{index}: {mean} {expected}"
        );
    }
    assert_eq!(server.try_get(&path.replace("max_pixels", "pixels")).0, 400);
    // Numbers past what the catalogue can count to are an empty page.
    let (status, page) = server.try_get("/api/v1/runs?offset=18446744073709551615");
    assert_eq!(
        (status, &page["total"], &page["runs"]),
        (200, &object!(2), &object!([])),
        "{page}"
    );
}

#[test]
fn a_request_says_how_many_frames_and_which_technique() {
    let folder = folder("asked");
    let more =
        format!("{POWDER}[recipe.ct]\ntechnique = \"tomography\"\noperations = [\"correct\", \"backproject\"]\n");
    let config = configuration(&folder, FRAMES, &more);
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, format!("[run]\nrecipe = \"ct\"\n{text}")).expect("a configuration");
    let server = Server::start(&config);
    let ended = run(
        &server,
        &object!({ "technique": "diffraction", "frames_expected": 25, "metadata": { "operator": "me" } }),
    );
    assert_eq!(ended["summary"]["frames"]["expected"], 25);
    assert_eq!(ended["record"]["technique"], "diffraction");
    for (request, said) in [
        (
            object!({ "technique": "imaging" }),
            "technique = \"imaging\": no recipe is of this technique; there are: ct (tomography), powder (diffraction)",
        ),
        (
            object!({ "technique": "tomography", "recipe": "powder" }),
            "recipe powder is of technique diffraction",
        ),
        (object!({ "frames_expected": 0, "technique": "diffraction" }), "frames"),
    ] {
        let (status, error) = server.post("/api/v1/runs", &request);
        let message = error["message"].as_str().unwrap_or_default();
        assert!(status == 422 && message.contains(said), "{status} {error}");
    }
}

/// Status, headers and body of a file, or of a part of it.
fn part(server: &Server, file: &str, headers: &[(&str, &str)]) -> (u16, ureq::http::HeaderMap, Vec<u8>) {
    let mut request = ureq::get(format!("{}/api/v1/runs/first/files/{file}", server.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut answer = request.config().http_status_as_error(false).build().call().expect(file);
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec();
    (
        answer.status().as_u16(),
        answer.headers().clone(),
        body.expect("a body"),
    )
}

#[test]
fn files_of_a_closed_run_are_read_whole_and_in_part() {
    let test = "files_of_a_closed_run_are_read_whole_and_in_part";
    let folder = folder("files");
    // Frames of 1 MB that are stored as they are: data files longer than what is read at once.
    let source = "scene = \"pattern\"\nrows = 512\ncolumns = 1024\nframes = 20\nrate_hz = 0.0\n";
    let recipe = "[recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n";
    let config = configuration(&folder, source, recipe);
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let text = text.replace("[store]\n", "[store]\ncompress = false\nframes_per_file = 15\n");
    std::fs::write(&config, text).expect("a configuration");
    let server = Server::start(&config);
    let ended = run(&server, &object!({ "name": "first" }));
    let master = ended["summary"]["files"][0].as_str().expect("a master file");
    let here = Path::new(master).parent().expect("a folder");
    let record = std::fs::read(here.join("run.json")).expect("run.json");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    let listed = ["files", "journal"].map(|list| record[list].as_array().expect("a list").clone());
    for file in listed.concat() {
        let name = file["name"].as_str().expect("a name");
        let bytes = std::fs::read(here.join(name)).expect("a file");
        assert_eq!(file["hash"], blake3::hash(&bytes).to_hex().as_str(), "{name}");
        let (status, headers, body) = part(&server, name, &[]);
        assert!(status == 200 && body == bytes, "{name}: {status}, {} bytes", body.len());
        let hash = format!("\"{}\"", file["hash"].as_str().expect("a hash"));
        assert_eq!(headers["etag"], hash.as_str());
        assert_eq!(headers["content-length"], bytes.len().to_string().as_str());
        let (last, behind) = (bytes.len() - 1, bytes.len());
        for (asked, from, to) in [
            ("bytes=0-0".to_string(), 0, 1),
            (format!("bytes=1-{last}"), 1, behind),
            (format!("bytes=-{}", 7.min(last)), behind - 7.min(last), behind),
            (format!("bytes={}-", behind / 2 + 1), behind / 2 + 1, behind),
        ] {
            let (status, headers, body) = part(&server, name, &[("range", &asked), ("if-range", &hash)]);
            assert!(status == 206 && body == bytes[from..to], "{name} {asked}: {status}");
            let range = format!("bytes {from}-{}/{behind}", to - 1);
            assert_eq!(headers["content-range"], range.as_str());
        }
        let (status, _, body) = part(&server, name, &[("range", "bytes=0-0"), ("if-range", "\"other\"")]);
        assert!(
            status == 200 && body.len() == behind,
            "the file is another one: {status}"
        );
        let (status, headers, _) = part(&server, name, &[("range", &format!("bytes={behind}-"))]);
        assert_eq!(status, 416);
        assert_eq!(headers["content-range"], format!("bytes */{behind}").as_str());
    }
    assert_eq!(
        part(&server, "run.json", &[]).2,
        std::fs::read(here.join("run.json")).expect("run.json")
    );
    for other in [
        "state.jsonl",
        "none.h5",
        "..%2Frun.json",
        "%2Fetc%2Fpasswd",
        ".start.json",
    ] {
        assert_eq!(part(&server, other, &[]).0, 404, "{other}");
    }
    let Some(python) = python(test) else { return };
    let files = format!("{}/api/v1/runs/first/files/", server.url);
    let said = check(
        &python,
        "ranges.py",
        &[&files, "first", "15", "20", &here.display().to_string()],
    );
    println!("{}", said.trim());
}

/// Clients that take nothing of what they asked for hold up nobody but themselves.
#[test]
fn slow_downloads_cost_only_themselves() {
    use std::io::{Read, Write};
    let folder = folder("slow-downloads");
    // More than the sockets' buffers and the pieces on their way can hold.
    let source = "scene = \"pattern\"\nrows = 1024\ncolumns = 1024\nframes = 40\nrate_hz = 0.0\n";
    let recipe = "[feedback.limits]\nwrite_timeout_s = 600.0\n\
                  [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n";
    let config = configuration(&folder, source, recipe);
    let text = std::fs::read_to_string(&config).expect("the configuration");
    std::fs::write(&config, text.replace("[store]\n", "[store]\ncompress = false\n")).expect("a configuration");
    let server = Server::start(&config);
    run(&server, &object!({ "name": "first" }));
    let address = server.url.trim_start_matches("http://");
    let begun = |_| {
        let mut client = std::net::TcpStream::connect(address).expect("a connection");
        write!(
            client,
            "GET /api/v1/runs/first/files/first_data_000001.h5 HTTP/1.1\r\nhost: {address}\r\n\r\n"
        )
        .expect("asked");
        let patience = std::time::Duration::from_secs(40);
        client.set_read_timeout(Some(patience)).expect("a limit");
        // It has its turn when the answer begins.
        let mut head = [0; 12];
        client.read_exact(&mut head).expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
        client
    };
    // Each one's answer begins although those before it take no more of theirs: twice as many as are read at once.
    let clients: Vec<_> = (0..9).map(begun).collect();
    let (status, _, body) = part(&server, "first_data_000001.h5", &[]);
    assert!(status == 200 && body.len() > 80 << 20, "{status}, {} bytes", body.len());
    // And those get the rest when they want it.
    let mut patient = clients.into_iter().next().expect("a client");
    let mut rest = vec![0; body.len()];
    patient.read_exact(&mut rest).expect("the rest");
}
