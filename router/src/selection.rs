//! From the mixture asked for to packs and weights.

use manifests::MixtureChoice;

/// A pack that could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is the general pack, which answers when no other is chosen.
    pub general: bool,
}

/// The packs of a turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// No pack: the base's own layers stand in the slot.
    BaseAlone,
    /// Packs by name with weights `> 0` that sum to 1.
    Packs(Vec<(String, f64)>),
}

/// A mixture that can't be had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SelectionError {
    /// A name that no registered pack has.
    #[error("no pack named `{name}` is registered (registered: {})", list(.registered))]
    UnknownPack {
        /// As asked for.
        name: String,
        /// What there is.
        registered: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Chooses the packs of a turn.
///
/// `auto` gives the general pack all the weight, and the base alone where there is no general pack: packs that carry
/// no routing key can be asked for by name only.
///
/// # Errors
/// A name that no candidate has.
pub fn select(choice: &MixtureChoice, candidates: &[Candidate<'_>]) -> Result<Selection, SelectionError> {
    let Some(wanted) = choice.normalized() else {
        let general = candidates.iter().find(|candidate| candidate.general);
        return Ok(match (choice, general) {
            (MixtureChoice::Auto, Some(general)) => Selection::Packs(vec![(general.name.to_owned(), 1.0)]),
            _ => Selection::BaseAlone,
        });
    };
    let packs = wanted.into_iter().map(|(name, weight)| {
        match candidates.iter().find(|candidate| candidate.name == name.as_str()) {
            Some(candidate) => Ok((candidate.name.to_owned(), weight)),
            None => Err(SelectionError::UnknownPack {
                name: name.to_string(),
                registered: candidates.iter().map(|candidate| candidate.name.to_owned()).collect(),
            }),
        }
    });
    Ok(Selection::Packs(packs.collect::<Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANDIDATES: [Candidate<'_>; 2] =
        [Candidate { name: "law", general: false }, Candidate { name: "general", general: true }];

    #[test]
    fn auto_is_the_general_pack_and_without_one_the_base() {
        let general = Selection::Packs(vec![("general".into(), 1.0)]);
        assert_eq!(select(&MixtureChoice::Auto, &CANDIDATES), Ok(general));
        assert_eq!(select(&MixtureChoice::Auto, &CANDIDATES[..1]), Ok(Selection::BaseAlone));
        assert_eq!(select(&MixtureChoice::None, &CANDIDATES), Ok(Selection::BaseAlone));
    }

    #[test]
    fn named_packs_get_weights_that_sum_to_one() {
        let choice = "law=3,general=1".parse().unwrap();
        let expected = Selection::Packs(vec![("law".into(), 0.75), ("general".into(), 0.25)]);
        assert_eq!(select(&choice, &CANDIDATES), Ok(expected));
    }

    #[test]
    fn an_unknown_name_is_refused_with_what_there_is() {
        let error = select(&"lwa".parse().unwrap(), &CANDIDATES).unwrap_err();
        assert_eq!(error.to_string(), "no pack named `lwa` is registered (registered: law, general)");
    }
}
