//! The serial line: bytes as they come, through frames and messages, in pieces of any size.
#![no_main]

use std::hint::black_box;

use dunlin_mcu::Link;
use dunlin_mcu::frame::{self, Decoder, Step};
use dunlin_mcu::message::{self, Down, Up};
use embedded_io::{ErrorKind, ErrorType, Read, ReadReady};
use libfuzzer_sys::fuzz_target;

const N: usize = 64;

struct Bytes<'b>(&'b [u8]);

impl ErrorType for Bytes<'_> {
    type Error = ErrorKind;
}

impl ReadReady for Bytes<'_> {
    fn read_ready(&mut self) -> Result<bool, ErrorKind> {
        Ok(!self.0.is_empty())
    }
}

impl Read for Bytes<'_> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, ErrorKind> {
        Read::read(&mut self.0, into).map_err(|_| ErrorKind::Other)
    }
}

/// A frame around a payload.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut content = payload.to_vec();
    content.extend([0; frame::CRC_LEN]);
    let mut line = Vec::new();
    let sealed = frame::seal(&mut content, payload.len()).expect("there is room");
    frame::encode(sealed, |bytes| {
        line.extend(bytes);
        Ok::<_, ()>(())
    })
    .expect("a vector takes all");
    line
}

fuzz_target!(|bytes: &[u8]| {
    // As a line: whatever comes, the frame after it is read.
    let mut line = bytes.to_vec();
    line.extend(framed(b"after it"));
    let mut decoder = Decoder::<N>::new();
    let mut last = Vec::new();
    for &byte in &line {
        if decoder.push(byte) == Step::Frame {
            assert!(decoder.payload().len() + frame::CRC_LEN <= N);
            last = decoder.payload().to_vec();
        }
    }
    assert_eq!(last, b"after it");
    let mut link = Link::<_, N>::new(Bytes(bytes));
    for _ in 0..bytes.len() + 1 {
        black_box(link.receive::<Down<'_>>().expect("the port works"));
    }
    // As a payload.
    if let Ok(up) = message::decode::<Up<'_>>(bytes) {
        let mut buffer = vec![0; bytes.len() + 64];
        let len = message::encode(&up, &mut buffer).expect("it came from as many bytes");
        assert_eq!(message::decode::<Up<'_>>(&buffer[..len]), Ok(up));
    }
    black_box(message::decode::<Down<'_>>(bytes).is_ok());
    black_box(dunlin_mcu::Factory::read(bytes));
});
