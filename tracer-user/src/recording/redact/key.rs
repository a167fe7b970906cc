//! The secret that stand-ins are made with, and how they are made.
//! Input: random bytes of the system.

use std::io;

use sha2::{Digest as _, Sha256};

/// What stand-ins are made with. Who does not have it cannot undo them, and nobody has it when all is done.
pub struct Key(pub(super) [u8; 32]);

impl Key {
    /// A new one.
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

    /// A number that stands for `value`, one of those of that `kind`; 48 bits.
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
