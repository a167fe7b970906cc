//! The secret from which stand-ins are made.
//! Input: random bytes of the system.

use std::io;

use sha2::{Digest as _, Sha256};

/// The secret from which stand-ins are made. They cannot be undone without it, and it is dropped after the redaction.
pub struct Key(pub(super) [u8; 32]);

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        let mut filled = 0;
        while filled < key.len() {
            filled += rustix::rand::getrandom(&mut key[filled..], rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self(key))
    }

    /// A 48-bit stand-in for `value` among the values of that `kind`.
    pub(super) fn hash(&self, kind: &str, value: &[&[u8]]) -> u64 {
        let mut hash = Sha256::new_with_prefix(self.0);
        for part in std::iter::once(&kind.as_bytes()).chain(value) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let hash = hash.finalize();
        hash.iter().take(6).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
    }
}
