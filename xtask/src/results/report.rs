//! Parses the guest's results as they arrive: lines, and raw bytes that some lines announce.
//! Input: the output of `tests/src/runner/report.rs`, cut anywhere.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::tally::{Tally, Verdict};

/// One message of the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Hello {
        release: String,
        cases: usize,
    },
    Begin {
        name: String,
    },
    Tick,
    File {
        name: String,
        data: Vec<u8>,
    },
    End {
        name: String,
        verdict: Verdict,
        took: Duration,
        detail: String,
    },
    Closing {
        tally: Tally,
    },
}

/// Splits the stream into messages.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it has arrived completely.
    ///
    /// # Errors
    /// When the stream is not one that a guest of this version writes, or a file arrived damaged.
    pub fn next(&mut self) -> Result<Option<Message>> {
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
                        verdict: self::verdict(verdict)?,
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

fn verdict(word: &str) -> Result<Verdict> {
    Ok(match word {
        "passed" => Verdict::Passed,
        "failed" => Verdict::Failed,
        "skipped" => Verdict::Skipped,
        "not-applicable" => Verdict::NotApplicable,
        _ => bail!("{word:?} in the report is not a verdict"),
    })
}

/// The same rule as in the guest: such a name cannot leave the directory that it is joined to.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// FNV-1a, 64 bits. It detects a damaged transfer; it need not resist attacks.
fn fnv1a(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The line that a person reads, and the indented reason of a failure below it.
pub fn result_line(name: &str, verdict: Verdict, took: Duration, detail: &str) -> String {
    let end = match verdict {
        Verdict::Passed => format!("ok ({:.1} s)", took.as_secs_f64()),
        Verdict::Failed => format!("FAILED ({:.1} s)", took.as_secs_f64()),
        Verdict::Skipped => format!("skipped ({detail})"),
        Verdict::NotApplicable => format!("n/a ({detail})"),
    };
    let mut line = format!(
        "{name} {:.<width$} {end}",
        "",
        width = 36_usize.saturating_sub(name.len())
    );
    if verdict == Verdict::Failed {
        for reason in detail.lines() {
            line.push_str("\n    ");
            line.push_str(reason);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{Message, Reader, Tally, Verdict, fnv1a};
    use std::time::Duration;

    const STREAM: &[u8] = b"tracer-tests 1 6.1.0-56-amd64 2\nbegin a/b\ntick\nfile x.bin 6 85944171f73967e8\nfoobar\n\
        end a/b failed 1500 9\nwhy:\n\nso.\nclosing 0 1 0 3\n";

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
                while let Some(message) = reader.next()? {
                    got.push(message);
                }
            }
            assert_eq!(got, messages());
        }
        Ok(())
    }

    #[test]
    fn a_failure_is_bad_and_in_ci_so_is_a_skip() {
        let bad = |verdict, ci| Tally::of(verdict).is_bad(ci);
        assert!(bad(Verdict::Failed, false) && bad(Verdict::Skipped, true));
        assert!(!bad(Verdict::Skipped, false) && !bad(Verdict::NotApplicable, true) && !bad(Verdict::Passed, true));
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
            assert!(reader.next().is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
