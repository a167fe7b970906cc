//! Moves outside migrate_pages, by the kernel's own counts: a run knows kinds that it does not trace only from them.
//! Input: /proc/vmstat at the begin and at the end of a run.

use serde::{Deserialize, Serialize};

use crate::kernel::vmstat::Vmstat;

/// Counts of the whole machine, for any targets. A counter that the kernel does not have counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outside {
    /// Pages that went to swap.
    pub swapped_out: u64,
    /// Pages that came back from swap.
    pub swapped_in: u64,
    /// Huge pages that were allocated for collapses.
    pub collapses: u64,
    /// KSM pages that were copied for writes.
    pub ksm_copies: u64,
}

/// Pages written to swap: to a device, into zswap, or as a mark for a page full of zeros (mm/page_io.c, mm/zswap.c, 6.1
/// to 7.3).
const OUT: [&str; 3] = ["pswpout", "zswpout", "swpout_zero"];
/// Pages that zswap writes to its device have left memory before (mm/zswap.c, `zswap_writeback_entry`).
const WRITTEN_BACK: &str = "zswpwb";
/// Pages read from swap.
const IN: [&str; 3] = ["pswpin", "zswpin", "swpin_zero"];
/// mm/khugepaged.c, 6.1 to 7.3.
const COLLAPSED: &str = "thp_collapse_alloc";
/// mm/memory.c, `do_wp_page`, 6.1 to 7.3: the kernel does not count other copies on write.
const KSM_COPIED: &str = "cow_ksm";

impl Outside {
    /// Whether this counter of /proc/vmstat is needed.
    #[must_use]
    pub fn is_counted(name: &str) -> bool {
        OUT.contains(&name) || IN.contains(&name) || [WRITTEN_BACK, COLLAPSED, KSM_COPIED].contains(&name)
    }

    /// The counts since boot.
    #[must_use]
    pub fn of(vmstat: &Vmstat) -> Self {
        let get = |name: &str| vmstat.get(name).unwrap_or_default();
        let sum = |names: [&str; 3]| names.into_iter().map(get).sum::<u64>();
        Self {
            swapped_out: sum(OUT).saturating_sub(get(WRITTEN_BACK)),
            swapped_in: sum(IN),
            collapses: get(COLLAPSED),
            ksm_copies: get(KSM_COPIED),
        }
    }

    /// The growth since an earlier reading.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            swapped_out: self.swapped_out.saturating_sub(earlier.swapped_out),
            swapped_in: self.swapped_in.saturating_sub(earlier.swapped_in),
            collapses: self.collapses.saturating_sub(earlier.collapses),
            ksm_copies: self.ksm_copies.saturating_sub(earlier.ksm_copies),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_zswap_writes_back_is_counted_once() {
        let before = Vmstat::parse(b"pswpin 5\npswpout 100\nzswpout 40\nzswpwb 10\nthp_collapse_alloc 3\n");
        let after = Vmstat::parse(b"pswpin 7\npswpout 120\nzswpout 60\nzswpwb 15\nthp_collapse_alloc 4\ncow_ksm 2\n");
        let between = Outside::of(&after).since(&Outside::of(&before));
        let expected = Outside {
            swapped_out: 35,
            swapped_in: 2,
            collapses: 1,
            ksm_copies: 2,
        };
        assert_eq!(between, expected);
        assert!(after.iter().all(|(name, _)| Outside::is_counted(name)));
        assert!(!Outside::is_counted("pgmigrate_success"));
    }
}
