//! From a query string to the JSON an operation's schema asks for, and the parsing of list parameters.

use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};

/// Most pairs of a query string: no route takes more.
const MAX_PAIRS: usize = 64;

/// The decoded pairs of a query string. A name that stands twice keeps its last value.
pub fn query(raw: Option<&str>) -> ApiResult<Vec<(String, String)>> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for part in raw.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
        if pairs.len() == MAX_PAIRS {
            return Err(ApiError::field("query", format!("more than {MAX_PAIRS} parameters")));
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(&text.replace('+', " "))
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| ApiError::field("query", "is not UTF-8 when decoded"))
        };
        pairs.push((decode(name)?, decode(value)?));
    }
    Ok(pairs)
}

/// Gives pairs the types that a JSON Schema names for them; what does not parse stays text, for the schema to
/// refuse with its own words.
pub fn typed(pairs: Vec<(String, String)>, schema: &Value) -> Value {
    let mut object = Map::new();
    for (name, text) in pairs {
        let declared = &schema["properties"][&name]["type"];
        let is = |wanted: &str| {
            declared == wanted || declared.as_array().is_some_and(|a| a.iter().any(|t| t == wanted))
        };
        let value = if is("integer") {
            text.parse::<i64>().map_or_else(|_| Value::String(text.clone()), Value::from)
        } else if is("boolean") {
            match text.as_str() {
                "true" | "1" | "" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                _ => Value::String(text),
            }
        } else {
            Value::String(text)
        };
        object.insert(name, value);
    }
    Value::Object(object)
}

/// `limit` and `cursor` of a list, the defaults of the contract.
pub fn page(pairs: &[(String, String)]) -> ApiResult<(u32, Option<String>)> {
    let limit = match find(pairs, "limit") {
        None => 50,
        Some(text) => text
            .parse::<u32>()
            .ok()
            .filter(|n| (1..=200).contains(n))
            .ok_or_else(|| ApiError::field("limit", "must be a whole number from 1 to 200"))?,
    };
    Ok((limit, find(pairs, "cursor").map(str::to_owned)))
}

/// The value of one parameter.
pub fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// A flag: `true`, `1` or nothing after the name.
pub fn flag(pairs: &[(String, String)], name: &str) -> ApiResult<bool> {
    match find(pairs, name) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(_) => Err(ApiError::field(name, "must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_takes_the_types_of_its_schema() {
        let schema = json!({ "properties": {
            "path": {"type": "string"}, "limit": {"type": "integer"}, "hidden": {"type": "boolean"},
        }});
        let pairs = query(Some("path=a%20b+c&limit=7&hidden&extra=1")).unwrap();
        assert_eq!(typed(pairs, &schema), json!({"path": "a b c", "limit": 7, "hidden": true, "extra": "1"}));
        let wrong = typed(query(Some("limit=many")).unwrap(), &schema);
        assert_eq!(wrong, json!({"limit": "many"}));
    }

    #[test]
    fn a_list_has_bounds() {
        assert_eq!(page(&[]).unwrap(), (50, None));
        for bad in ["0", "201", "-1", "x", ""] {
            assert!(page(&[("limit".into(), bad.into())]).is_err(), "{bad}");
        }
    }
}
