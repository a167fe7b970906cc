//! Parses the guest's results as they arrive: lines, and raw bytes that some lines announce.
//! Input: the output of `write`, cut anywhere.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{
    fnv1a, is_plain_name,
    tally::{Tally, Verdict},
};

/// One message of a report.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// The first one.
    Hello {
        /// uname -r.
        release: String,
        /// The number of cases that are to run.
        cases: usize,
    },
    /// A case begins.
    Begin {
        /// Its name.
        name: String,
    },
    /// The writer is alive.
    Tick,
    /// The running case sends a file.
    File {
        /// Its plain name.
        name: String,
        /// Its content.
        data: Vec<u8>,
    },
    /// A case has ended.
    End {
        /// Its name.
        name: String,
        /// Its verdict.
        verdict: Verdict,
        /// How long it ran.
        took: Duration,
        /// The reason of the verdict, for a person.
        detail: String,
    },
    /// The last one.
    Closing {
        /// The writer's counts.
        tally: Tally,
    },
}

/// Splits a report into messages.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes of the report.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it has arrived completely.
    ///
    /// # Errors
    /// When the bytes are not what a writer of this version writes, or a file arrived damaged.
    pub fn message(&mut self) -> Result<Option<Message>> {
        let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let line = std::str::from_utf8(&self.buffer[..end]).context("a line of the report is not text")?;
        let line = line.to_owned();
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let words: Vec<&str> = words.collect();
        let (message, used) = match (kind, words.as_slice()) {
            ("tracer-tests", ["1", release, cases]) => (
                Message::Hello {
                    release: (*release).to_owned(),
                    cases: number(cases)?,
                },
                end + 1,
            ),
            ("begin", [name]) => (
                Message::Begin {
                    name: (*name).to_owned(),
                },
                end + 1,
            ),
            ("tick", []) => (Message::Tick, end + 1),
            ("file", [name, length, hash]) => {
                let Some((data, used)) = self.raw(end + 1, number(length)?)? else {
                    return Ok(None);
                };
                ensure!(
                    format!("{:016x}", fnv1a(data)) == *hash,
                    "the file {name} arrived damaged"
                );
                ensure!(
                    is_plain_name(name),
                    "the guest sends a file with a strange name: {name:?}"
                );
                (
                    Message::File {
                        name: (*name).to_owned(),
                        data: data.to_vec(),
                    },
                    used,
                )
            }
            ("end", [name, verdict, millis, length]) => {
                let Some((detail, used)) = self.raw(end + 1, number(length)?)? else {
                    return Ok(None);
                };
                let detail = String::from_utf8_lossy(detail).into_owned();
                let took = Duration::from_millis(millis.parse().with_context(|| format!("no time: {line:?}"))?);
                (
                    Message::End {
                        name: (*name).to_owned(),
                        verdict: verdict.parse()?,
                        took,
                        detail,
                    },
                    used,
                )
            }
            ("closing", [passed, failed, skipped, not_applicable]) => {
                let tally = Tally {
                    passed: number(passed)?,
                    failed: number(failed)?,
                    skipped: number(skipped)?,
                    not_applicable: number(not_applicable)?,
                };
                (Message::Closing { tally }, end + 1)
            }
            _ => bail!("the report has an unknown line: {line:?}"),
        };
        self.buffer.drain(..used);
        Ok(Some(message))
    }

    /// `length` bytes at `start`, and the position of the next line, once these bytes and their newline have arrived.
    fn raw(&self, start: usize, length: usize) -> Result<Option<(&[u8], usize)>> {
        let end = start.checked_add(length).context("a length out of range")?;
        match self.buffer.get(end) {
            None => Ok(None),
            Some(b'\n') => Ok(Some((&self.buffer[start..end], end + 1))),
            Some(_) => bail!("bytes were lost or added in the report"),
        }
    }
}

fn number(text: &str) -> Result<usize> {
    text.parse()
        .with_context(|| format!("{text:?} in the report is not a number"))
}

/// A report with each kind of message.
#[cfg(test)]
pub(crate) const STREAM: &[u8] =
    b"tracer-tests 1 6.1.0-56-amd64 2\nbegin a/b\ntick\nfile x.bin 6 85944171f73967e8\nfoobar\n\
    end a/b failed 1500 9\nwhy:\n\nso.\nclosing 0 1 0 3\n";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Message, Reader, STREAM, Tally, Verdict};

    fn messages() -> Vec<Message> {
        vec![
            Message::Hello {
                release: "6.1.0-56-amd64".into(),
                cases: 2,
            },
            Message::Begin { name: "a/b".into() },
            Message::Tick,
            Message::File {
                name: "x.bin".into(),
                data: b"foobar".into(),
            },
            Message::End {
                name: "a/b".into(),
                verdict: Verdict::Failed,
                took: Duration::from_millis(1500),
                detail: "why:\n\nso.".into(),
            },
            Message::Closing {
                tally: Tally {
                    failed: 1,
                    not_applicable: 3,
                    ..Tally::default()
                },
            },
        ]
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() -> anyhow::Result<()> {
        for size in [1, 7, STREAM.len()] {
            let mut reader = Reader::default();
            let mut got = Vec::new();
            for piece in STREAM.chunks(size) {
                reader.feed(piece);
                while let Some(message) = reader.message()? {
                    got.push(message);
                }
            }
            assert_eq!(got, messages());
        }
        Ok(())
    }

    #[test]
    fn damage_is_an_error() {
        let damaged: [&[u8]; 5] = [
            b"file x 3 0000000000000000\nabc\n",
            b"file ../x 0 cbf29ce484222325\n\n",
            b"end a failed 1 2\nabc\n",
            b"hello\n",
            b"\xff\n",
        ];
        for bytes in damaged {
            let mut reader = Reader::default();
            reader.feed(bytes);
            assert!(reader.message().is_err(), "{}", String::from_utf8_lossy(bytes));
        }
    }
}
