//! Training pairs: every line is a pair or an error that names it.
#![no_main]

use deepguard::error::ErrorKind;
use deepguard::train::records::for_each_record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), bytes).expect("a temporary file");
    let lines = bytes.split(|byte| *byte == b'\n').count();
    let _all = for_each_record(file.path(), |place, pair| {
        assert!((1..=lines).contains(&place.line));
        match pair {
            Ok(pair) => assert!(!pair.vulnerable.trim().is_empty() && !pair.secure.trim().is_empty()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Data),
        }
        Ok(())
    });
});
