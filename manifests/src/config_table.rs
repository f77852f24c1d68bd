//! A pack's free `[config]` table: TOML in the manifest, JSON for the pack.

/// The table as JSON. Dates become strings; numbers that JSON can't hold become null (the manifest's check refuses
/// them before).
pub(crate) fn to_json(table: &toml::Table) -> serde_json::Value {
    table.iter().map(|(key, value)| (key.clone(), value_to_json(value))).collect()
}

fn value_to_json(value: &toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(integer) => (*integer).into(),
        toml::Value::Float(float) => (*float).into(),
        toml::Value::Boolean(boolean) => (*boolean).into(),
        toml::Value::Datetime(datetime) => datetime.to_string().into(),
        toml::Value::Array(values) => values.iter().map(value_to_json).collect(),
        toml::Value::Table(table) => to_json(table),
    }
}

/// Keys that lead to the first number that JSON can't hold.
pub(crate) fn first_non_finite(table: &toml::Table) -> Option<Vec<String>> {
    table.iter().find_map(|(key, value)| {
        let mut path = vec![key.clone()];
        path.extend(non_finite_in(value)?);
        Some(path)
    })
}

fn non_finite_in(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::Float(float) if !float.is_finite() => Some(Vec::new()),
        toml::Value::Array(values) => values.iter().find_map(non_finite_in),
        toml::Value::Table(table) => first_non_finite(table),
        _ => None,
    }
}
