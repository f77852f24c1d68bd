//! Which windows are looked at, and which are computed together.

use modularbase_corpus::{LossOn, TokenizedCorpus, Window, windows};

/// Windows of at most `length` targets: all of them, or, where they have more than `max_tokens` targets, evenly
/// spread ones with about as many. What is left out does not depend on the text.
pub(super) fn choose(
    corpus: &TokenizedCorpus,
    length: usize,
    loss_on: LossOn,
    max_tokens: Option<u64>,
) -> Vec<Window> {
    let whole: u64 = windows(corpus, length, loss_on).map(|window| window.targets().len() as u64).sum();
    let all = windows(corpus, length, loss_on);
    let Some(max_tokens) = max_tokens.filter(|max| *max < whole) else { return all.collect() };
    let share = max_tokens as f64 / whole as f64;
    let (mut seen, mut taken) = (0, 0);
    all.filter(|window| {
        let targets = window.targets().len() as u64;
        seen += targets;
        let take = (taken as f64) < seen as f64 * share;
        taken += if take { targets } else { 0 };
        take
    })
    .collect()
}

/// Groups of windows for one pass each, by index: of about equal length, so that little is filled up, and of at most
/// `rows` rows with what is filled up. The longest come first: what does not fit a device shows at once.
pub(super) fn groups(windows: &[Window], rows: usize) -> Vec<Vec<usize>> {
    let targets = |index: usize| windows[index].targets().len();
    let mut order: Vec<usize> = (0..windows.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(targets(index)), index));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for index in order {
        let fits = groups.last().is_some_and(|group| {
            let longest = targets(group[0]);
            // A fifth filled up costs about what a pass more would.
            (group.len() + 1) * longest <= rows && targets(index) * 5 >= longest * 4
        });
        match groups.last_mut() {
            Some(group) if fits => group.push(index),
            _ => groups.push(vec![index]),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(document: usize, targets: usize) -> Window {
        Window { document, ids: vec![0; targets + 1], counts: vec![true; targets] }
    }

    #[test]
    fn every_window_is_in_one_group_and_groups_keep_to_their_rows() {
        let windows: Vec<Window> = (0..200).map(|index| window(index, 1 + (index * 37) % 128)).collect();
        let groups = groups(&windows, 512);
        let mut seen: Vec<usize> = groups.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        for group in &groups {
            let lengths: Vec<usize> = group.iter().map(|&index| windows[index].targets().len()).collect();
            let longest = *lengths.iter().max().unwrap();
            assert!(group.len() * longest <= 512 || group.len() == 1);
            assert!(lengths.iter().all(|length| length * 5 >= longest * 4), "{lengths:?}");
        }
    }

    #[test]
    fn a_window_longer_than_the_rows_stands_alone() {
        assert_eq!(groups(&[window(0, 100), window(1, 100)], 50), [vec![0], vec![1]]);
    }
}
