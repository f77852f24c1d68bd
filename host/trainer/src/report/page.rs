//! What every page shares: its frame, its looks, and how text becomes HTML.

use std::fmt::Write;

/// Colours stand in variables, so that charts follow the theme too.
const STYLE: &str = "\
:root{color-scheme:light dark;--back:#fbfbf9;--text:#1d1f23;--soft:#5d636e;--line:#d9dbdf;--card:#fff;\
--good:#1f8a4c;--bad:#c2402a;--s1:#2264b4;--s2:#c35a1c;--s3:#1f8a4c;--s4:#8550b0}\
@media (prefers-color-scheme:dark){:root{--back:#15171b;--text:#e7e8ea;--soft:#9ba1ac;--line:#343840;\
--card:#1c1f25;--good:#4cc27f;--bad:#ef7d67;--s1:#6ea8ec;--s2:#ee9b62;--s3:#4cc27f;--s4:#c195e6}}\
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--text);\
font:15px/1.5 system-ui,-apple-system,'Segoe UI',sans-serif}\
main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}h1{font-size:26px;margin:0 0 4px}\
h2{font-size:19px;margin:36px 0 8px}h3{font-size:15px;margin:22px 0 6px}p{margin:6px 0}\
.soft,figcaption{color:var(--soft)}figcaption{font-size:13px}figure{margin:14px 0;background:var(--card);\
border:1px solid var(--line);border-radius:8px;padding:14px 16px;overflow-x:auto}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}\
th,td{padding:5px 12px 5px 0;text-align:right;border-bottom:1px solid var(--line);vertical-align:top;\
white-space:nowrap}th{font-weight:600;color:var(--soft)}th:first-child,td:first-child{text-align:left}\
td.text,th.text{text-align:left;white-space:normal}td small{display:block;color:var(--soft)}\
td.own{font-weight:600}td.heat{padding:5px 10px;border-radius:4px}\
.big{font-size:34px;font-weight:650;letter-spacing:-.5px}\
pre,code{font:13px/1.45 ui-monospace,'SF Mono',Menlo,Consolas,monospace}\
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px;white-space:pre-wrap;\
overflow-wrap:anywhere}details{margin:10px 0}summary{cursor:pointer;color:var(--soft)}\
svg{display:block;max-width:100%;height:auto}svg text{fill:var(--text);font:12px system-ui,sans-serif}\
svg .soft{fill:var(--soft)}svg .grid{stroke:var(--line);stroke-width:1}svg .zero{stroke:var(--soft);stroke-width:1}\
.s1{stroke:var(--s1);fill:var(--s1)}.s2{stroke:var(--s2);fill:var(--s2)}.s3{stroke:var(--s3);fill:var(--s3)}\
.s4{stroke:var(--s4);fill:var(--s4)}path.s1,path.s2,path.s3,path.s4{fill:none}\
.good{stroke:var(--good);fill:var(--good)}.bad{stroke:var(--bad);fill:var(--bad)}";

/// A page with this title; `body` is HTML.
pub(super) fn page(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{title}</title><style>{STYLE}</style></head>\n<body><main>\n\
         <h1>{title}</h1>\n{body}</main></body></html>\n"
    )
}

/// Text as HTML, also within quotes of attributes. Control characters that HTML does not have become spaces.
pub(super) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(character),
            control if control.is_control() => html.push(' '),
            other => html.push(other),
        }
    }
    html
}

/// A table; the cells of the body are HTML, those of the head are text.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"wide\"><table><thead><tr>");
    for cell in head {
        push(&mut html, format_args!("<th>{}</th>", escaped(cell)));
    }
    html.push_str("</tr></thead><tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for cell in row {
            // A cell that is one already keeps its class.
            match cell.starts_with("<td") {
                true => html.push_str(cell),
                false => push(&mut html, format_args!("<td>{cell}</td>")),
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody></table></div>\n");
    html
}

/// Appends formatted text; a `String` takes it always.
pub(super) fn push(html: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = html.write_fmt(text);
}

/// A whole number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// That every element is closed in order, attributes are quoted, and nothing is fetched: what a page needs to be
    /// shown anywhere.
    pub(in crate::report) fn check(html: &str) {
        const VOID: [&str; 2] = ["meta", "br"];
        let mut open: Vec<String> = Vec::new();
        let body = html.strip_prefix("<!DOCTYPE html>").expect("a doctype");
        let mut rest = body;
        while let Some(start) = rest.find('<') {
            let end = start + rest[start..].find('>').expect("an end of the tag");
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            assert_eq!(tag.matches('"').count() % 2, 0, "quotes of <{tag}>");
            let name = tag.trim_matches('/').split([' ', '\n']).next().unwrap_or_default().to_owned();
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(closed), "near {:.60}", rest);
            } else if !tag.ends_with('/') && !VOID.contains(&name.as_str()) {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
        for word in ["http://", "https://", "<script", "src=", "@import", "NaN", "inf"] {
            let found = html.replace("http://www.w3.org/2000/svg", "");
            assert!(!found.contains(word), "{word}");
        }
    }

    #[test]
    fn text_cannot_break_out_of_its_place() {
        assert_eq!(escaped("<b a=\"1\">&'\u{1b}"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39; ");
        check(&page(
            "a < b",
            &table(&["x<"], &[vec![escaped("</td>")], vec!["<td class=\"own\">1</td>".into()]]),
        ));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"].map(str::to_owned),
            [0, 999, 1000, 12_345_678].map(grouped)
        );
    }
}
