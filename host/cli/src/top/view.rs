//! What `top` shows now: the last status, the order and the selection, which follows its pack.

use std::cmp::Reverse;
use std::time::Instant;

use modularbase_manager::{HostStatus, PackReport};

use super::rates::Rates;

/// By what the packs are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    State,
    Name,
    Memory,
    Used,
}

impl Order {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Name => "name",
            Self::Memory => "memory",
            Self::Used => "last use",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::State => Self::Name,
            Self::Name => Self::Memory,
            Self::Memory => Self::Used,
            Self::Used => Self::State,
        }
    }
}

pub(super) struct View {
    /// Whether colours are used.
    pub(super) colour: bool,
    pub(super) status: Option<HostStatus>,
    /// When the status came.
    pub(super) seen: Instant,
    pub(super) rates: Rates,
    pub(super) order: Order,
    /// Name and generation of the selected pack.
    selected: Option<(String, Option<String>)>,
    /// The first row of the table that is shown.
    pub(super) offset: usize,
    /// What became of the last wish, and when.
    message: Option<(String, Instant)>,
}

impl View {
    pub(super) fn new(colour: bool) -> Self {
        Self {
            colour,
            status: None,
            seen: Instant::now(),
            rates: Rates::default(),
            order: Order::State,
            selected: None,
            offset: 0,
            message: None,
        }
    }

    /// Takes a new status.
    pub(super) fn take(&mut self, status: HostStatus, rates: Rates) {
        self.status = Some(status);
        self.seen = Instant::now();
        self.rates = rates;
        self.sort();
    }

    /// Shows words for a while.
    pub(super) fn say(&mut self, words: String) {
        self.message = Some((words, Instant::now()));
    }

    /// What became of the last wish, while that is news.
    pub(super) fn message(&self) -> Option<&str> {
        let (words, at) = self.message.as_ref()?;
        (at.elapsed().as_secs() < 8).then_some(words)
    }

    pub(super) fn packs(&self) -> &[PackReport] {
        self.status.as_ref().map_or(&[], |status| &status.packs)
    }

    pub(super) fn next_order(&mut self) {
        self.order = self.order.next();
        self.sort();
    }

    /// Moves the selection, up where `by` is negative; it stays within the table.
    pub(super) fn select_by(&mut self, by: isize) {
        let last = self.packs().len().saturating_sub(1);
        let index = match self.selected_index() {
            Some(index) => index.saturating_add_signed(by).min(last),
            // As if the line above the first were selected.
            None => usize::try_from(by.saturating_sub(1)).unwrap_or(0).min(last),
        };
        self.selected = self.packs().get(index).map(identity);
    }

    pub(super) fn selected_index(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.packs().iter().position(|pack| identity(pack) == *selected)
    }

    pub(super) fn selected_pack(&self) -> Option<&PackReport> {
        self.packs().get(self.selected_index()?)
    }

    /// Scrolls so far that the selection is among `rows` rows, and no further than the table reaches.
    pub(super) fn scroll_into(&mut self, rows: usize) {
        if let Some(index) = self.selected_index() {
            self.offset = self.offset.clamp((index + 1).saturating_sub(rows.max(1)), index);
        }
        self.offset = self.offset.min(self.packs().len().saturating_sub(rows));
    }

    fn sort(&mut self) {
        let order = self.order;
        if let Some(status) = &mut self.status {
            status.packs.sort_by(|a, b| {
                let by = match order {
                    // What is on the device and in use comes first, what does not work last.
                    Order::State => liveliness(a).cmp(&liveliness(b)),
                    Order::Name => std::cmp::Ordering::Equal,
                    Order::Memory => b.resident_bytes.cmp(&a.resident_bytes),
                    Order::Used => Reverse(a.last_used_ms).cmp(&Reverse(b.last_used_ms)),
                };
                by.then_with(|| a.name.cmp(&b.name)).then_with(|| a.generation.cmp(&b.generation))
            });
        }
    }
}

fn identity(pack: &PackReport) -> (String, Option<String>) {
    (pack.name.clone(), pack.generation.clone())
}

fn liveliness(pack: &PackReport) -> u8 {
    use modularbase_manager::PackState::*;
    match pack.state {
        Leased => 0,
        Draining => 1,
        Resident => 2,
        Loading => 3,
        Evicted => 4,
        Registered => 5,
        Seen | Verified | Probed => 6,
        Pinned => 7,
        Quarantined => 8,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use modularbase_manager::{PackState, Totals};

    /// A host with so many packs in all states.
    pub(in crate::top) fn status(packs: usize) -> HostStatus {
        use PackState::*;
        let states = [Quarantined, Registered, Resident, Leased, Evicted, Loading, Draining, Seen, Pinned];
        let pack = |index: usize| {
            let state = states[index % states.len()];
            let is_on_device = matches!(state, Resident | Leased | Draining);
            PackReport {
                name: format!("pack-{index:02}"),
                path: "/packs/x".into(),
                id: None,
                version: Some("1.0.0".to_owned()),
                kind: None,
                generation: Some(format!("{index:064x}")),
                state,
                since_ms: crate::times::now_ms() - 61_000,
                reason: (state == Quarantined)
                    .then(|| "the file law.so has another SHA-256 than stated".to_owned()),
                routable: true,
                not_routable: None,
                keep: state == Resident,
                priority: 0,
                leases: usize::from(state == Leased),
                resident_bytes: if is_on_device { 6_000_000 + index as u64 } else { 0 },
                file_bytes: 6_000_000,
                library_pinned: false,
                signer: None,
                last_used_ms: is_on_device.then(|| crate::times::now_ms() - 5_000 * index as u64),
                loads: 3,
                load_ms: [].into(),
                warnings: Vec::new(),
            }
        };
        let packs: Vec<PackReport> = (0..packs).map(pack).collect();
        let mut held: std::collections::BTreeMap<String, u64> = packs
            .iter()
            .filter(|pack| pack.resident_bytes > 0)
            .map(|pack| (format!("pack {}", pack.name), pack.resident_bytes))
            .collect();
        held.extend([("base".to_owned(), 98_400_000), ("kv".to_owned(), 12_000_000)]);
        HostStatus {
            pid: 4711,
            uptime_ms: 3_723_000,
            base: "smollm2-135m-instruct".to_owned(),
            device: "cpu".to_owned(),
            packs_dir: Some("/var/lib/modularbase/packs".into()),
            budget_bytes: 200_000_000,
            held_bytes: held,
            totals: Totals::default(),
            unhealthy: None,
            packs,
        }
    }

    #[test]
    fn the_selection_follows_its_pack_through_other_orders_and_news() {
        let mut view = View::new(true);
        view.select_by(1);
        assert!(view.selected_pack().is_none(), "there is nothing to select");
        view.take(status(9), Rates::default());
        assert_eq!(view.packs()[0].state, PackState::Leased);
        view.select_by(1);
        view.select_by(1);
        let name = view.selected_pack().unwrap().name.clone();
        for _ in 0..4 {
            view.next_order();
            assert_eq!(view.selected_pack().unwrap().name, name);
        }
        view.take(status(30), Rates::default());
        assert_eq!(view.selected_pack().unwrap().name, name);
        view.take(status(0), Rates::default());
        assert!(view.selected_pack().is_none());
    }

    #[test]
    fn the_selection_stays_in_the_table_and_the_table_scrolls_with_it() {
        let mut view = View::new(true);
        view.take(status(30), Rates::default());
        view.select_by(isize::MAX);
        view.select_by(isize::MAX);
        assert_eq!(view.selected_index(), Some(29));
        view.scroll_into(10);
        assert_eq!(view.offset, 20);
        view.select_by(-5);
        view.scroll_into(10);
        assert_eq!(view.offset, 20);
        view.select_by(isize::MIN);
        view.scroll_into(10);
        assert_eq!((view.selected_index(), view.offset), (Some(0), 0));
        view.select_by(isize::MAX);
        view.scroll_into(50);
        assert_eq!(view.offset, 0, "all fit");
        view.scroll_into(0);
    }
}
