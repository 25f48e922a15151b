//! As much of PromQL as is needed to know which series an expression names: its selectors with their
//! matchers, and the labels that it groups and joins by. A tokenizer and no grammar: what is valid is
//! for `promtool check rules`.

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expression {
    pub(crate) selectors: Vec<Selector>,
    /// Of `by`, `without`, `on`, `ignoring`, `group_left` and `group_right`.
    pub(crate) labels: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    pub(crate) matchers: Vec<Matcher>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Matcher {
    pub(crate) label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub(crate) operator: String,
    pub(crate) value: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    /// Anything else; two characters where they belong together.
    Sign(String),
}

/// Words that no series is called.
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];
/// Words before a list of labels.
const GROUPINGS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

impl Expression {
    pub(crate) fn parse(text: &str) -> Self {
        let tokens = tokens(text);
        let mut expression = Self::default();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            let Token::Word(name) = token else { continue };
            let next = tokens.get(at);
            // `sum(…)`, `sum by (…) (…)`.
            let is_call = is_sign(next, "(")
                || next
                    .and_then(word)
                    .is_some_and(|next| next == "by" || next == "without");
            if GROUPINGS.contains(&name.as_str()) {
                at = expression.take_labels(&tokens, at);
            } else if !OPERATORS.contains(&name.as_str()) && !is_call {
                at = expression.take_selector(name, &tokens, at);
            }
        }
        expression
    }

    /// The labels between the brackets at `at`, if there are any; where they end.
    fn take_labels(&mut self, tokens: &[Token], at: usize) -> usize {
        if !is_sign(tokens.get(at), "(") {
            return at;
        }
        let inside = tokens.iter().skip(at + 1);
        let inside: Vec<_> = inside
            .take_while(|token| !is_sign(Some(token), ")"))
            .collect();
        let end = at + inside.len() + 2;
        self.labels.extend(inside.into_iter().filter_map(word));
        end
    }

    /// A series with the matchers at `at`, if there are any; where they end.
    fn take_selector(&mut self, metric: &str, tokens: &[Token], at: usize) -> usize {
        let mut selector = Selector {
            metric: metric.to_owned(),
            matchers: Vec::new(),
        };
        let mut end = at;
        if is_sign(tokens.get(at), "{") {
            end += 1;
            while let [
                Token::Word(label),
                Token::Sign(operator),
                Token::Text(value),
                ..,
            ] = tokens.get(end..).unwrap_or_default()
            {
                selector.matchers.push(Matcher {
                    label: label.clone(),
                    operator: operator.clone(),
                    value: value.clone(),
                });
                end += 3;
                if is_sign(tokens.get(end), ",") {
                    end += 1;
                }
            }
        }
        self.selectors.push(selector);
        end
    }
}

fn is_sign(token: Option<&Token>, sign: &str) -> bool {
    matches!(token, Some(Token::Sign(found)) if found == sign)
}

fn word(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(word.clone()),
        _ => None,
    }
}

/// Numbers and what stands in square brackets name nothing and are left out.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut left = text.trim_start();
    while let Some(first) = left.chars().next() {
        let length = match first {
            '[' => left.find(']').map_or(left.len(), |end| end + 1),
            '"' => {
                let inside: String = left.chars().skip(1).take_while(|c| *c != '"').collect();
                let length = inside.len() + 2;
                tokens.push(Token::Text(inside));
                length
            }
            _ if first.is_ascii_digit() => {
                let end = |c: char| !(c.is_ascii_alphanumeric() || c == '.');
                left.find(end).unwrap_or(left.len())
            }
            _ if first.is_ascii_alphabetic() || first == '_' => {
                let end = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
                let length = left.find(end).unwrap_or(left.len());
                tokens.push(Token::Word(left[..length].to_owned()));
                length
            }
            _ => {
                let two = ["=~", "!~", "!=", "==", ">=", "<="];
                let two = two.into_iter().find(|two| left.starts_with(two));
                let sign = two.map_or_else(|| first.to_string(), str::to_owned);
                let length = sign.len();
                tokens.push(Token::Sign(sign));
                length
            }
        };
        left = left[length.min(left.len())..].trim_start();
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(label: &str, operator: &str, value: &str) -> Matcher {
        Matcher {
            label: label.to_owned(),
            operator: operator.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn series_matchers_and_labels_are_found_and_functions_are_none() {
        let text = "histogram_quantile(0.9, sum by (le, node) (rate(a_bucket{job=\"x\",\
                    code=~\"5..|429\"}[$__rate_interval]))) > 14.4 and on (node) \
                    bingo:a:rate5m unless vector(1) == 1";
        let found = Expression::parse(text);
        assert_eq!(found.labels, ["le", "node", "node"]);
        let metrics: Vec<_> = found
            .selectors
            .iter()
            .map(|one| one.metric.as_str())
            .collect();
        assert_eq!(metrics, ["a_bucket", "bingo:a:rate5m"]);
        assert_eq!(
            found.selectors[0].matchers,
            [matcher("job", "=", "x"), matcher("code", "=~", "5..|429")]
        );
    }

    #[test]
    fn durations_and_numbers_name_nothing() {
        let found = Expression::parse("a[1h:5m] offset 10m * 300 >= 1e3");
        assert_eq!(found.selectors.len(), 1);
        assert!(found.labels.is_empty());
    }
}
