//! The data recipes that come with the program.

use crate::data_recipe::DataRecipe;
use crate::error::ManifestError;

/// Name and text of each built-in recipe, sorted by name.
pub const BUILTIN_RECIPES: &[(&str, &str)] = &[
    ("chinese-poetry", include_str!("../data/chinese-poetry.toml")),
    ("code", include_str!("../data/code.toml")),
    ("general", include_str!("../data/general.toml")),
    ("german", include_str!("../data/german.toml")),
    ("legal", include_str!("../data/legal.toml")),
    ("math", include_str!("../data/math.toml")),
    ("medical", include_str!("../data/medical.toml")),
    ("shell", include_str!("../data/shell.toml")),
];

/// The built-in recipe of this name; `None` when there is none.
pub fn builtin_recipe(name: &str) -> Option<Result<DataRecipe, ManifestError>> {
    let (_, text) = BUILTIN_RECIPES.iter().find(|(known, _)| *known == name)?;
    Some(DataRecipe::parse(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_recipe_is_valid_pinned_and_carries_the_name_it_is_found_by() {
        for (name, _) in BUILTIN_RECIPES {
            let recipe = builtin_recipe(name).unwrap().unwrap();
            assert_eq!(recipe.recipe.name.as_str(), *name);
            assert!(recipe.source.values().all(|source| source.sha256.is_some()), "{name} is pinned");
            assert!(recipe.split.is_some(), "{name} is split");
            assert_eq!(DataRecipe::parse(&recipe.to_toml().unwrap()).unwrap(), recipe);
        }
        assert!(BUILTIN_RECIPES.is_sorted());
        assert!(builtin_recipe("unknown").is_none());
    }
}
