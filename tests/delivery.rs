//! Results to consumers by their own policy: all of them, again from a number, the newest, at a rate; and one that does not read.

use fluxline_tests::{Server, check, complaint, fluxline, folder, port, python};
use serde_json::{Value, json as object};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

fn configuration(folder: &Path, kept: usize, bins: usize, rate_hz: f64, frames: usize) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"simulate\"\nscene = \"diffraction\"\n\
         detector = \"custom\"\nrows = 200\ncolumns = 200\nframes = {frames}\nrate_hz = {rate_hz:?}\ndistinct = 4\n\
         [store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\nresults_kept = {kept}\n\
         [recipe.powder]\ntechnique = \"diffraction\"\noperations = [\"correct\", \"statistics\", \"azimuthal\"]\n\
         [recipe.powder.azimuthal]\nbins = {bins}\n",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

type Socket = WebSocket<MaybeTlsStream<TcpStream>>;

fn listen(server: &Server, query: &str) -> Socket {
    let address = format!("{}/api/v1/runs/live/results?{query}", server.url.replace("http", "ws"));
    tungstenite::connect(address).expect("a WebSocket").0
}

/// The next result; none where the appliance says that it is over.
fn next_of(socket: &mut Socket) -> Option<Value> {
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            return Some(serde_json::from_str(text.as_str()).expect("JSON"));
        }
    }
    None
}

/// Everything until the appliance says that it is over.
fn rest(socket: &mut Socket) -> Vec<Value> {
    std::iter::from_fn(|| next_of(socket)).collect()
}

fn sequences(results: &[Value]) -> Vec<u64> {
    results
        .iter()
        .map(|result| result["sequence"].as_u64().expect("a number"))
        .collect()
}

#[test]
fn a_consumer_that_does_not_read_costs_nobody_anything_and_is_told_what_it_lost() {
    let folder = folder("delivery-stuck");
    let server = Server::start(&configuration(&folder, 64, 8000, 250.0, 250));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "live" }));
    assert_eq!(status, 201, "{armed}");
    // The stuck ones ask for 80 kB a result: more than all buffers between here and there.
    let mut stuck: Vec<Socket> = (0..4)
        .map(|_| listen(&server, "policy=lossless&curves=true&from=0"))
        .collect();
    // One of them takes a result now and then: whoever takes none for ten seconds is let go, which is for a slow machine to decide.
    let mut good = listen(&server, "policy=lossless&from=0");
    let (mut results, mut woken) = (Vec::new(), Vec::new());
    while let Some(result) = next_of(&mut good) {
        results.push(result);
        if results.len() % 25 == 0 {
            woken.extend(next_of(&mut stuck[0]));
        }
    }
    let run = server.wait("/api/v1/runs/live", |run| !run["summary"].is_null());
    let lost: u64 = results.iter().filter_map(|result| result["lost"].as_u64()).sum();
    assert_eq!(results.len() as u64 + lost, 250, "all of them, or told of");
    assert_eq!(run["outcomes"]["done"], 250, "the pipeline did not wait: {run}");
    assert_eq!(run["frames"]["complete"], 250, "{run}");
    assert!(
        server.text("/metrics").contains("\nfluxline_results_missed_total 0\n"),
        "the hub did not wait"
    );
    // The slow one wakes up: what it was sent, then a gap that is told exactly, then the last ones.
    woken.extend(rest(&mut stuck[0]));
    let (mut next, mut gaps) = (0, 0);
    for result in &woken {
        let sequence = result["sequence"].as_u64().expect("a number");
        assert_eq!(sequence - next, result["lost"].as_u64().unwrap_or(0), "{next}");
        gaps += sequence - next;
        next = sequence + 1;
    }
    assert_eq!(next, 250, "up to the last one");
    assert!(gaps > 0, "it lost some: it was sent {}", woken.len());
    let metrics = server.text("/metrics");
    let counted = metrics
        .lines()
        .find_map(|line| line.strip_prefix("fluxline_results_lost_total "));
    let counted: f64 = counted.and_then(|count| count.parse().ok()).expect("a count");
    assert!(counted >= (gaps + lost) as f64, "{counted}: {gaps} and {lost}");
}

#[test]
fn results_are_resumed_sampled_and_marked_when_late() {
    let folder = folder("delivery-policies");
    let server = Server::start(&configuration(&folder, 1024, 50, 100.0, 200));
    let (status, armed) = server.post("/api/v1/runs", &object!({ "name": "live" }));
    assert_eq!(status, 201, "{armed}");
    let began = std::time::Instant::now();
    let mut sampled = listen(&server, "policy=sampled&max_rate_hz=5");
    let sampling = std::thread::spawn(move || rest(&mut sampled));
    let mut latest = listen(&server, "policy=latest");
    let newest = std::thread::spawn(move || rest(&mut latest));
    let mut first = listen(&server, "policy=lossless&from=0&deadline_ms=86400000");
    let mut had: Vec<Value> = Vec::new();
    while had.len() < 50 {
        if let Message::Text(text) = first.read().expect("a result") {
            had.push(serde_json::from_str(text.as_str()).expect("JSON"));
        }
    }
    drop(first);
    assert!(
        had.iter()
            .all(|result| result["late"] == false && result["lost"].is_null()),
        "{}",
        had[0]
    );
    let mut again = listen(&server, "policy=lossless&from=50&deadline_ms=0.001");
    let resumed = rest(&mut again);
    assert_eq!(sequences(&had), (0..50).collect::<Vec<u64>>());
    assert_eq!(sequences(&resumed), (50..200).collect::<Vec<u64>>(), "where it was");
    assert!(resumed.iter().all(|result| result["late"] == true));
    assert!(
        resumed
            .iter()
            .all(|result| result["sent_age_us"].as_u64() >= result["age_us"].as_u64())
    );
    let newest = sequences(&newest.join().expect("the latest"));
    assert!(
        newest.windows(2).all(|pair| pair[0] < pair[1]) && newest.last() == Some(&199),
        "{newest:?}"
    );
    let sampled = sequences(&sampling.join().expect("the sampled"));
    assert!(
        sampled.windows(2).all(|pair| pair[0] < pair[1]) && sampled.last() == Some(&199),
        "{sampled:?}"
    );
    let most = 2 + (5.0 * began.elapsed().as_secs_f64()).ceil() as usize;
    assert!(
        (2..=most).contains(&sampled.len()),
        "{} of at most {most} at 5 Hz",
        sampled.len()
    );
    // The same over server-sent events, when the run has ended, and again from the last one that came.
    assert_eq!(
        events(&server, "policy=lossless&from=0", None),
        (0..200).collect::<Vec<u64>>()
    );
    assert_eq!(
        events(&server, "policy=lossless&from=0", Some(189)),
        (190..200).collect::<Vec<u64>>()
    );
    assert_eq!(events(&server, "policy=latest", None), [199]);
    assert_eq!(events(&server, "policy=lossless", Some(199)), [0u64; 0]);
    for (query, said) in [
        ("policy=all", "lossless, latest or sampled"),
        ("max_rate_hz=0", "0.01 to 1000"),
        ("from=201", "0 to 200"),
        ("policy=latest&from=0", "policy=lossless"),
        ("deadline_ms=-1", "0.001"),
        ("deadline=3", "deadline"),
    ] {
        let (status, error) = server.try_get(&format!("/api/v1/runs/live/results?{query}"));
        assert!(
            status == 400 && error["message"].as_str().is_some_and(|m| m.contains(said)),
            "{query}: {error}"
        );
    }
}

/// Sequence numbers of the results that come as server-sent events until the stream says that it is over.
fn events(server: &Server, query: &str, last: Option<u64>) -> Vec<u64> {
    let address = server.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    let resume = last.map_or(String::new(), |last| format!("last-event-id: {last}\r\n"));
    let request = format!(
        "GET /api/v1/runs/live/results?{query} HTTP/1.1\r\nhost: {address}\r\n{resume}connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("a request");
    let lines: Vec<String> = BufReader::new(stream)
        .lines()
        .map(|line| line.expect("a line"))
        .collect();
    assert!(lines.iter().any(|line| line == "event: end"), "{lines:?}");
    lines
        .iter()
        .filter_map(|line| line.strip_prefix("id: ")?.parse().ok())
        .collect()
}

#[test]
fn results_are_published_by_zeromq_to_whoever_subscribes() {
    let test = "delivery-zmq";
    let Some(python) = python(test) else { return };
    let folder = folder(test);
    let address = format!("tcp://127.0.0.1:{}", port());
    for policy in ["latest", "sampled"] {
        let config = configuration(&folder, 64, 100, 100.0, 300);
        let text = std::fs::read_to_string(&config).expect("the configuration");
        let zmq = format!(
            "[feedback.zmq]\npublish = \"{address}\"\npolicy = \"{policy}\"\nmax_rate_hz = 10.0\n[recipe.powder]"
        );
        std::fs::write(&config, text.replacen("[recipe.powder]", &zmq, 1)).expect("written");
        let server = Server::start(&config);
        let said = check(&python, "zmq_results.py", &[&server.url, &address, policy]);
        println!("{policy}: {}", said.trim());
        // Two appliances cannot publish at one address; it is said at start.
        let second = folder.join("second.toml");
        let text = std::fs::read_to_string(&config).expect("the configuration");
        std::fs::write(&second, text.replace("/store\"", "/store-2\"")).expect("written");
        let (status, words) = complaint(&fluxline(&["run", &second.display().to_string()]));
        assert!(status == 2 && words.contains("feedback.zmq.publish"), "{words}");
        drop(server);
        std::fs::remove_dir_all(folder.join("store")).expect("removed");
    }
    let config = configuration(&folder, 64, 100, 100.0, 300);
    let text = std::fs::read_to_string(&config).expect("the configuration");
    for (wrong, field) in [
        ("publish = \"127.0.0.1:1\"", "feedback.zmq.publish"),
        (
            "publish = \"tcp://127.0.0.1:1\"\npolicy = \"lossless\"",
            "feedback.zmq.policy",
        ),
        (
            "publish = \"tcp://127.0.0.1:1\"\nmax_rate_hz = 0.0",
            "feedback.zmq.max_rate_hz",
        ),
    ] {
        let zmq = format!("[feedback.zmq]\n{wrong}\n[recipe.powder]");
        std::fs::write(&config, text.replacen("[recipe.powder]", &zmq, 1)).expect("written");
        let (status, words) = complaint(&fluxline(&["validate", &config.display().to_string()]));
        assert!(status == 2 && words.contains(field), "{words}");
    }
}
