//! Peers of a DECTRIS source that are no detector, and one that speaks an older ZeroMQ, through the built binary.

use fluxline_tests::{fluxline, folder, json};
use serde_json::{Value, json as object};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn configuration(folder: &Path, addresses: &[&str], start_timeout_s: f64) -> PathBuf {
    let text = format!(
        "[ring]\nslots = 64\nallow_transparent = true\n[[source]]\nkind = \"dectris\"\naddresses = {addresses:?}\n\
         start_timeout_s = {start_timeout_s:.1}\n[store]\npath = \"{}\"\n[feedback]\nlisten = \"127.0.0.1:0\"\n\
         [recipe.look]\ntechnique = \"diffraction\"\noperations = [\"statistics\"]\n",
        folder.join("store").display()
    );
    let path = folder.join("fluxline.toml");
    std::fs::write(&path, text).expect("a configuration");
    path
}

fn once(config: &Path) -> Value {
    json(&fluxline(&["run", "--once", "--json", &config.display().to_string()]))
}

/// A process that ends when the test does.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes connections on a free port and does this with each of them, until the process ends.
fn peer(talk: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", listener.local_addr().expect("its address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            // The other side may end it at any time.
            let _ = talk(&mut stream);
        }
    });
    address
}

/// The greeting and READY of a PUSH socket, and whatever follows them.
fn greet(stream: &mut TcpStream, then: &[u8]) -> std::io::Result<()> {
    let mut greeting = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    greeting.extend(b"NULL");
    greeting.resize(64, 0);
    stream.write_all(&greeting)?;
    stream.read_exact(&mut [0; 64])?;
    stream.write_all(b"\x04\x1a\x05READY\x0bSocket-Type\x00\x00\x00\x04PUSH")?;
    stream.write_all(then)?;
    // Until the other side ends it.
    while stream.read(&mut [0; 256])? > 0 {}
    Ok(())
}

#[test]
fn peers_that_are_no_detector_hold_up_neither_the_run_nor_the_detector() {
    let test = "peers_that_are_no_detector_hold_up_neither_the_run_nor_the_detector";
    let folder = folder(test);
    let http = peer(|stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let noise = peer(|stream| stream.write_all(&[0xff; 100]));
    let forged = peer(|stream| greet(stream, &[&[2][..], &(1u64 << 63).to_be_bytes()].concat()));
    let large = peer(|stream| greet(stream, &[&[2][..], &(1u64 << 40).to_be_bytes(), &[0xa0; 5000]].concat()));
    // The head of an image of a megabyte, and then nothing.
    let half = peer(|stream| {
        let mut begun = vec![2];
        begun.extend((1u64 << 20).to_be_bytes());
        begun.extend(
            b"\xa5\x64type\x65image\x69series_id\x01\x70series_unique_id\x61x\x68image_id\x00\x64data\xa1\x61a",
        );
        begun.resize(9000, 0x5a);
        greet(stream, &begun)
    });
    let silent = peer(|stream| stream.read(&mut [0; 65]).map(drop));
    let detector = format!("tcp://127.0.0.1:{}", fluxline_tests::port());
    let all = [&http, &noise, &forged, &large, &half, &silent, &detector].map(String::as_str);
    let frames = folder.join("simulate.toml");
    let text =
        "scene = \"diffraction\"\ndetector = \"custom\"\nrows = 66\ncolumns = 50\nframes = 300\nrate_hz = 500.0\n";
    std::fs::write(&frames, text).expect("a simulation");
    let mut command = Command::new(fluxline_tests::binary());
    command.args(["emulate", "--json", "--dectris", &detector, "--simulate"]);
    command.arg(&frames).stdin(Stdio::null()).stdout(Stdio::null());
    let _sender = Background(command.spawn().expect("the emulator"));
    let summary = once(&configuration(&folder, &all, 60.0));
    assert_eq!(
        (&summary["state"], &summary["frames"]["complete"]),
        (&object!("complete"), &object!(300)),
        "{summary}"
    );
    assert_eq!(summary["dectris"]["malformed"], Value::Null, "{summary}");
    assert!(summary["dectris"]["disconnects"].as_u64() >= Some(4), "{summary}");
    // What is wrong with a peer is said where no series begins.
    for (address, wanted) in [
        (&http, "what is there does not speak ZeroMQ"),
        (
            &forged,
            "it announced 9223372036854775808 bytes, more than source.message_bytes_max",
        ),
    ] {
        let config = configuration(&folder, &[address], 3.0);
        let (status, said) = fluxline_tests::complaint(&fluxline(&["run", "--once", &config.display().to_string()]));
        assert_eq!(status, 1, "{said}");
        assert!(said.contains("no series began") && said.contains(wanted), "{said}");
    }
}

/// A library from before ZeroMQ 4 speaks ZMTP 2, which libzmq understands: the messages come through it.
#[test]
fn a_detector_of_an_older_zeromq_is_heard_through_the_library() {
    use driver::dectris::encode::{SeriesEncoder, unique_name};
    use driver::dectris::{Version, message::SeriesKey};
    let test = "a_detector_of_an_older_zeromq_is_heard_through_the_library";
    let folder = folder(test);
    let shape = frame::Shape::new(66, 50);
    let stream = frame::StreamDescription {
        origin: String::new(),
        shape,
        pixel_type: frame::PixelType::U32,
        compression: frame::Compression::None,
        payload_bytes_max: 4 * shape.pixels(),
        frames_expected: 20,
        darks: 0,
        flats: 0,
        angles_deg: Vec::new(),
        kinds: Vec::new(),
        pausable: false,
        parts: 0,
        saturation_value: None,
        mask: None,
        detector: Default::default(),
        metadata: Default::default(),
    };
    let key = SeriesKey {
        id: 1,
        unique: unique_name(1, 1),
    };
    let encoder = SeriesEncoder::new(key, Version::V2, "2026-11-23T12:00:00Z", &stream);
    let mut messages = vec![encoder.start(&stream)];
    for number in 0..20 {
        let mut header = frame::FrameHeader::new(shape, stream.pixel_type, stream.compression);
        header.frame_number.set(number);
        messages.push(encoder.image(&header, &vec![number as u8; 4 * shape.pixels()], &stream));
    }
    messages.push(encoder.end());
    let address = peer(move |stream| {
        // Signature, revision 1, PUSH, no name.
        stream.write_all(b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x08\0\0")?;
        let mut greeting = [0; 12];
        stream.read_exact(&mut greeting)?;
        if greeting[11] != 7 {
            // It insists on ZMTP 3.
            return Ok(());
        }
        for part in messages.iter().flatten() {
            stream.write_all(&[2])?;
            stream.write_all(&(part.len() as u64).to_be_bytes())?;
            stream.write_all(part)?;
        }
        while stream.read(&mut [0; 256])? > 0 {}
        Ok(())
    });
    let summary = once(&configuration(&folder, &[&address], 60.0));
    assert_eq!(summary["frames"]["complete"], 20, "{summary}");
    assert_eq!(summary["dectris"]["placed"], Value::Null, "{summary}");
}
