//! The style sheet: the layers in their order, without comments and space.

use std::path::Path;

use anyhow::Result;

const LAYERS: [&str; 4] = ["tokens.css", "base.css", "layout.css", "components.css"];

pub fn collect(dir: &Path) -> Result<String> {
    let mut all = String::new();
    for layer in LAYERS {
        all.push_str(&minify(&super::read_text(&dir.join(layer))?));
    }
    Ok(all)
}

/// Takes out comments and every space that separates nothing. Text in quotes
/// stays as it is.
fn minify(css: &str) -> String {
    let mut out = String::with_capacity(css.len());
    let mut rest = css;
    let mut space = false;
    while let Some(next) = rest.chars().next() {
        if let Some(comment) = rest.strip_prefix("/*") {
            rest = comment.split_once("*/").map_or("", |(_, after)| after);
            space = true;
            continue;
        }
        let length = if matches!(next, '"' | '\'') {
            rest.char_indices()
                .skip(1)
                .find(|(_, c)| *c == next)
                .map_or(rest.len(), |(at, _)| at + 1)
        } else {
            next.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        if next.is_whitespace() {
            space = true;
            continue;
        }
        let glued = |c: char| matches!(c, '{' | '}' | ';' | ',');
        if space && !glued(next) && !out.ends_with(glued) && !out.is_empty() {
            out.push(' ');
        }
        space = false;
        if next == '}' && out.ends_with(';') {
            out.pop();
        }
        out.push_str(token);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::minify;

    #[test]
    fn minified_css_means_the_same() {
        assert_eq!(
            minify(
                "a :hover , b { /* x */ color: calc(1px + 2px); &:focus { content: \" ; \"; } }\n"
            ),
            "a :hover,b{color: calc(1px + 2px);&:focus{content: \" ; \"}}"
        );
    }
}
