//! Facts hidden in a long text, with the questions that ask for them: what shows how far a model finds back (the passkey
//! task of Mohtashami and Jaggi 2023, arXiv 2305.16300, section 4.2, with a name for every key).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// What keys are for.
const NAMES: [&str; 96] = [
    "Accra", "Algiers", "Amman", "Ankara", "Athens", "Austin", "Baghdad", "Baku", "Bamako", "Bangkok",
    "Basel", "Beirut", "Belgrade", "Bergen", "Berlin", "Bern", "Bogota", "Bologna", "Boston", "Brussels",
    "Cairo", "Calgary", "Caracas", "Chicago", "Colombo", "Cork", "Dakar", "Dallas", "Damascus", "Delhi",
    "Denver", "Dhaka", "Doha", "Dresden", "Dublin", "Durban", "Essen", "Florence", "Geneva", "Genoa",
    "Ghent", "Glasgow", "Graz", "Hamburg", "Hanoi", "Harare", "Havana", "Helsinki", "Houston", "Istanbul",
    "Jakarta", "Kabul", "Karachi", "Kiev", "Kyoto", "Lagos", "Lahore", "Leeds", "Leipzig", "Lille", "Lima",
    "Lisbon", "London", "Lusaka", "Lyon", "Madrid", "Malaga", "Manila", "Miami", "Milan", "Minsk", "Monaco",
    "Montreal", "Moscow", "Mumbai", "Munich", "Nairobi", "Naples", "Nice", "Osaka", "Oslo", "Ottawa",
    "Paris", "Prague", "Quito", "Riga", "Rome", "Seoul", "Sofia", "Tokyo", "Tunis", "Turin", "Venice",
    "Vienna", "Warsaw", "Zurich",
];

/// A fact that is nowhere else in the text: the pass key for a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    /// Whose key it is.
    pub name: &'static str,
    /// Five digits, the first one not 0.
    pub key: String,
}

impl Needle {
    /// The sentences that say it.
    pub fn statement(&self) -> String {
        format!("The pass key for {} is {}. Remember it.", self.name, self.key)
    }

    /// The question behind the text, up to where the key comes.
    pub fn question(&self) -> String {
        format!("\nWhat is the pass key for {name}?\nThe pass key for {name} is", name = self.name)
    }

    /// Question and answer.
    pub fn answered(&self) -> String {
        format!("{} {}.", self.question(), self.key)
    }

    /// Whether `text`, what a model wrote behind the question, begins with the key and nothing more of digits.
    pub fn is_answer(&self, text: &str) -> bool {
        let said = text.trim_start().strip_prefix(&self.key);
        said.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    }
}

/// Draws needles and places for them; the same for the same seed and round on every machine.
pub struct NeedleSource {
    random: ChaCha8Rng,
}

impl NeedleSource {
    /// The `round`-th source of a seed.
    pub fn new(seed: u64, round: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(round);
        Self { random }
    }

    /// A number below `limit`; 0 below 1.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.random.next_u64()) * limit as u128) >> 64) as usize
    }

    /// `count` needles with names that differ, at most as many as there are names.
    pub fn needles(&mut self, count: usize) -> Vec<Needle> {
        let mut names = NAMES;
        let count = count.min(names.len());
        for place in 0..count {
            names.swap(place, place + self.below(NAMES.len() - place));
        }
        let keys = names.into_iter().take(count);
        keys.map(|name| Needle { name, key: (10_000 + self.below(90_000)).to_string() }).collect()
    }

    /// Needles alone, each said `times` times, in an order that is drawn for each time and in words that are drawn once: what
    /// a model learns to find first.
    pub fn repeated(&mut self, needles: &[Needle], times: usize) -> String {
        let form = self.below(3);
        let mut text = String::new();
        for _ in 0..times {
            for Needle { name, key } in self.shuffled(needles) {
                text += &match form {
                    0 => format!("{name} {key}. "),
                    1 => format!("{name} is {key}. "),
                    _ => format!("The pass key for {name} is {key}. "),
                };
            }
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// `text` with every needle at a place that is drawn, and behind it all questions with their answers, in an order that
    /// is drawn.
    pub fn training_text(&mut self, text: &str, needles: &[Needle]) -> String {
        let placed: Vec<(f64, &Needle)> =
            needles.iter().map(|needle| (self.below(1 << 20) as f64 / f64::from(1 << 20), needle)).collect();
        let mut whole = with_needles(text, &placed);
        whole.extend(self.shuffled(needles).into_iter().map(Needle::answered));
        whole
    }

    fn shuffled<'a>(&mut self, needles: &'a [Needle]) -> Vec<&'a Needle> {
        let mut order: Vec<&Needle> = needles.iter().collect();
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

/// `text` with needles at their depths, 0 (in front of it) to 1 (behind it), each between two words or sentences.
pub fn with_needles(text: &str, needles: &[(f64, &Needle)]) -> String {
    let mut placed: Vec<(usize, &Needle)> =
        needles.iter().map(|(depth, needle)| (gap(text, *depth), *needle)).collect();
    placed.sort_by_key(|(place, _)| *place);
    let mut whole = String::with_capacity(text.len() + 64 * needles.len());
    let mut from = 0;
    for (place, needle) in placed {
        whole.push_str(&text[from..place]);
        if !whole.is_empty() && !whole.ends_with(char::is_whitespace) {
            whole.push(' ');
        }
        whole.push_str(&needle.statement());
        if !text[place..].starts_with(char::is_whitespace) {
            whole.push(' ');
        }
        from = place;
    }
    whole.push_str(&text[from..]);
    whole
}

/// The first gap between sentences, else between words, at or behind a depth of the text: a byte.
fn gap(text: &str, depth: f64) -> usize {
    /// Bytes that are looked through for a sentence's end.
    const NEAR: usize = 240;
    let mut start = (text.len() as f64 * depth.clamp(0.0, 1.0)) as usize;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    if start == 0 {
        return 0;
    }
    let rest = &text[start..];
    let near = rest.char_indices().take_while(|(at, _)| *at < NEAR);
    let sentence = near.clone().zip(rest.chars().skip(1));
    let ends = sentence.filter(|((_, c), next)| matches!(c, '.' | '!' | '?' | '\n') && next.is_whitespace());
    if let Some(((at, c), _)) = ends.into_iter().next() {
        return start + at + c.len_utf8();
    }
    near.into_iter().find(|(_, c)| c.is_whitespace()).map_or(text.len(), |(at, _)| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needles_follow_from_seed_and_round_and_have_names_of_their_own() {
        let needles = NeedleSource::new(1, 2).needles(96);
        assert_eq!(needles, NeedleSource::new(1, 2).needles(96));
        assert_ne!(needles, NeedleSource::new(1, 3).needles(96));
        let names: std::collections::BTreeSet<_> = needles.iter().map(|needle| needle.name).collect();
        assert_eq!(names.len(), 96);
        assert!(needles.iter().all(|needle| needle.key.len() == 5));
    }

    #[test]
    fn a_text_keeps_its_words_and_gets_every_needle_at_its_depth() {
        let text = "One sentence is here. Another one follows. ".repeat(50);
        let needles = NeedleSource::new(1, 0).needles(3);
        let placed: Vec<(f64, &Needle)> = [0.9, 0.0, 0.5].into_iter().zip(&needles).collect();
        let whole = with_needles(&text, &placed);
        let at = |needle: &Needle| whole.find(&needle.statement()).unwrap() as f64 / whole.len() as f64;
        for (depth, needle) in placed {
            assert!((at(needle) - depth).abs() < 0.05, "{depth}: {}", at(needle));
        }
        let without = needles.iter().fold(whole, |text, needle| text.replace(&needle.statement(), ""));
        assert!(without.split_whitespace().eq(text.split_whitespace()));
        assert!(with_needles("", &[(0.3, &needles[0])]).contains(&needles[0].key));
    }

    #[test]
    fn depths_within_letters_of_several_bytes_find_a_gap() {
        let text = "Übergrößenträger ".repeat(40);
        let needle = &NeedleSource::new(1, 0).needles(1)[0];
        for depth in 0..100 {
            assert!(with_needles(&text, &[(f64::from(depth) / 100.0, needle)]).contains(&needle.statement()));
        }
    }

    #[test]
    fn an_answer_is_the_whole_key_and_nothing_longer() {
        let needle = Needle { name: "Lima", key: "48213".to_owned() };
        assert!(needle.is_answer(" 48213.") && needle.is_answer("48213"));
        assert!(!needle.is_answer(" 482130") && !needle.is_answer(" 4821") && !needle.is_answer("is 48213"));
    }

    #[test]
    fn repeated_needles_are_said_as_often_as_asked_for_and_nothing_else_is() {
        for round in 0..9 {
            let mut source = NeedleSource::new(5, round);
            let needles = source.needles(3);
            let text = source.repeated(&needles, 4);
            for Needle { name, key } in &needles {
                assert_eq!(
                    (text.matches(name).count(), text.matches(&format!("{key}.")).count()),
                    (4, 4),
                    "{text}"
                );
            }
            assert_eq!(text.matches('.').count(), 12);
        }
    }

    #[test]
    fn a_training_text_asks_for_every_needle_once() {
        let mut source = NeedleSource::new(3, 0);
        let needles = source.needles(5);
        let text = source.training_text(&"Words and more words. ".repeat(30), &needles);
        for needle in &needles {
            assert_eq!(text.matches(&needle.answered()).count(), 1);
            assert!(text.find(&needle.statement()).unwrap() < text.find(&needle.question()).unwrap());
        }
    }
}
