//! Strings that many events share: names of tasks and zones, flags of folios.
//! Input: text of the wire and of /proc.

use std::{collections::HashSet, sync::Arc};

/// The limit of kept strings. When it is reached, all are forgotten and made anew.
const MAX_STRINGS: usize = 1 << 16;

/// Each string once.
#[derive(Default)]
pub(super) struct Strings(HashSet<Arc<str>>);

impl Strings {
    /// The shared string of a text.
    pub fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        if self.0.len() >= MAX_STRINGS {
            self.0.clear();
        }
        let new: Arc<str> = Arc::from(text);
        self.0.insert(new.clone());
        new
    }

    /// The shared string of a NUL-padded name of the wire; None: the name is empty.
    pub fn share_padded(&mut self, bytes: &[u8]) -> Option<Arc<str>> {
        let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        (!text.is_empty()).then(|| self.share(&String::from_utf8_lossy(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_shared() {
        let mut strings = Strings::default();
        let first = strings.share_padded(b"swapper\0\0").unwrap();
        assert!(Arc::ptr_eq(&first, &strings.share("swapper")));
        assert_eq!(&*strings.share_padded(b"\xff").unwrap(), "\u{fffd}");
        assert_eq!(strings.share_padded(b"\0x"), None);
        assert_eq!(strings.share_padded(b""), None);
    }
}
