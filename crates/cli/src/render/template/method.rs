//! Methods with arguments, as Docker's rows have them: `{{.Label "k"}}`.
//!
//! The template language's crate knows functions as values, but a field takes no arguments there: Go calls a
//! method by its name alone, the crate wants `call .Label "k"`. So the parsed tree, in which text inside
//! literals can no longer be taken for a field, is given that `call` wherever a command begins with a method.

use gotmpl::parse::{CommandNode, Expr, ListNode, Node, Parser, PipeNode};
use gotmpl::{Template, TemplateError};

/// The methods that rows may have.
const METHODS: [&str; 1] = ["Label"];

/// The name under which a changed tree is kept; no template's text can define it, for it ends a literal.
pub(super) const ROOT: &str = "\"";

/// Gives `template`, which is `text` parsed, its calls; true if there are any, and [`ROOT`] is to be executed.
pub(super) fn with_calls(template: Template, text: &str) -> Result<(Template, bool), TemplateError> {
    let (mut root, defines) = Parser::new(text, "{{", "}}")?.parse()?;
    let mut called = list(&mut root);
    let mut template = template;
    for mut define in defines {
        if list(&mut define.body) {
            called = true;
            template = template.add_parse_tree(&define.name, define.body);
        }
    }
    Ok(if called { (template.add_parse_tree(ROOT, root), true) } else { (template, false) })
}

/// Every function here says whether it changed something.
fn list(list: &mut ListNode) -> bool {
    list.nodes.iter_mut().fold(false, |changed, item| node(item) | changed)
}

fn node(node: &mut Node) -> bool {
    match node {
        Node::List(inner) => list(inner),
        Node::Action(action) => pipe(&mut action.pipe),
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
            let otherwise = branch.else_body.as_mut().is_some_and(list);
            pipe(&mut branch.pipe) | list(&mut branch.body) | otherwise
        }
        Node::Template(template) => template.pipe.as_mut().is_some_and(pipe),
        Node::Define(define) => list(&mut define.body),
        Node::Text(_) | Node::Break(_) | Node::Continue(_) => false,
    }
}

fn pipe(pipe: &mut PipeNode) -> bool {
    pipe.commands.iter_mut().fold(false, |changed, item| command(item) | changed)
}

fn command(command: &mut CommandNode) -> bool {
    let changed = command.args.iter_mut().fold(false, |changed, item| expression(item) | changed);
    let method = match command.args.first() {
        Some(Expr::Field(pos, fields) | Expr::Variable(pos, _, fields)) => {
            fields.last().filter(|name| METHODS.contains(&name.as_str())).map(|_| *pos)
        }
        _ => None,
    };
    match method {
        Some(pos) => {
            command.args.insert(0, Expr::Identifier(pos, "call".into()));
            true
        }
        None => changed,
    }
}

fn expression(expression: &mut Expr) -> bool {
    match expression {
        Expr::Pipe(_, inner) => pipe(inner),
        Expr::Chain(_, inner, _) => self::expression(inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Format;

    fn fill(text: &str) -> String {
        let cells = serde_json::json!({"Names": "pg", "Labels": "a.b=x"});
        let labels =
            BTreeMap::from([("a.b".to_owned(), "x".to_owned()), ("n".to_owned(), "1,2=3".to_owned())]);
        let label = move |key: &str| labels.get(key).cloned().unwrap_or_default();
        let filled = Format::parse(text).and_then(|format| format.fill_row(&cells, label));
        filled.unwrap_or_else(|failure| failure.text(false).trim_end().to_owned())
    }

    #[test]
    fn a_method_is_called_wherever_go_calls_it() {
        for (text, filled) in [
            (r#"{{.Names}}|{{.Label "a.b"}}|{{.Label "n"}}|{{.Label "none"}}|"#, "pg|x|1,2=3||"),
            (r#"{{if eq (.Label "a.b") "x"}}yes{{else}}no{{end}}"#, "yes"),
            (r#"{{if .Label "none"}}yes{{else if .Label "n"}}{{.Label "n" | upper}}{{end}}"#, "1,2=3"),
            (r#"{{"a.b" | .Label}} {{with .Names}}{{$.Label "a.b"}}{{end}}"#, "x x"),
            (r#"{{$row := .}}{{range split "a.b,n" ","}}{{$row.Label .}};{{end}}"#, "x;1,2=3;"),
            (r#"{{define "d"}}<{{.Label "n"}}>{{end}}{{template "d" .}}"#, "<1,2=3>"),
            ("{{printf `%s` (.Label `a.b`)}}", "x"),
        ] {
            assert_eq!(fill(text), filled, "{text}");
        }
    }

    #[test]
    fn text_that_looks_like_a_method_is_left_alone() {
        assert_eq!(
            fill(r#".Label "a" {{"{{.Label \"n\"}}"}}{{/* .Label "n" */}}"#),
            r#".Label "a" {{.Label "n"}}"#
        );
        assert_eq!(fill("{{.Labels}} {{json .}}"), r#"a.b=x {"Labels":"a.b=x","Names":"pg"}"#);
    }

    #[test]
    fn wrong_calls_are_refused() {
        for (text, why) in [
            ("{{.Label}}", "Label"),
            (r#"{{.Label "a" "b"}}"#, "Label"),
            (r#"{{.Names "a"}}"#, "can't give argument"),
            (r#"{{.Tag "a"}}"#, "can't give argument"),
        ] {
            let said = fill(text);
            assert!(
                said.starts_with("error: template parsing error") && said.contains(why),
                "{text}: {said}"
            );
        }
    }
}
