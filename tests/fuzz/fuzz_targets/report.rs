//! Any bytes as a report: a window or an error; a full one that is read is written as the same window again.
#![no_main]

use dunlin_telemetry::report::AnyReport;
use dunlin_telemetry::{Profile, Report, Window};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = AnyReport::decode(bytes);
    if let Ok(Report::Known(Profile::Full, window)) = Report::<10, 2>::decode(bytes) {
        let mut again = [0; 2048];
        let len = window.encode(Profile::Full, &mut again).expect("there is room");
        let Ok(Report::Known(_, read)) = Report::<10, 2>::decode(&again[..len]) else { panic!("it is not read again") };
        let read: Window<10, 2> = read;
        assert!(read == window);
    }
});
