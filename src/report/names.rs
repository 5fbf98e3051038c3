//! Names of files, which need not be text.

use std::path::Path;

/// A file's name for people and in JSON: bytes that are not UTF-8 as `\xFF`, all else as it is.
pub fn file_name(path: &Path) -> String {
    let mut name = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        name.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| name.push_str(&format!("\\x{byte:02X}")));
    }
    name
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_escaped() {
        let name = |bytes: &[u8]| file_name(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(name("dir/déjà vu 漢.py".as_bytes()), "dir/déjà vu 漢.py");
        assert_eq!(name(b"o\xffut\xc3.py"), "o\\xFFut\\xC3.py");
    }
}
