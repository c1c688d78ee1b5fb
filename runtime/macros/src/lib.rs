//! The macro `dunlin::include_model!`: a model in the program, checked while it is built. Use it through the crate `dunlin`.
#![forbid(unsafe_code)]

mod model;
mod source;

use proc_macro::{Delimiter, Group, Literal, TokenStream, TokenTree};

/// Expands `dunlin::include_model!`, which passes the path of its own crate first.
#[doc(hidden)]
#[proc_macro]
pub fn include_model(input: TokenStream) -> TokenStream {
    match expand(input) {
        Ok(module) => module,
        Err(message) => format!("::core::compile_error!({message:?});").parse().unwrap_or_default(),
    }
}

/// What the macro is called with: `$crate; ATTRIBUTES VISIBILITY mod NAME = "PATH"`.
struct Call {
    dunlin: TokenTree,
    /// Attributes and visibility.
    before: Vec<TokenTree>,
    name: TokenTree,
    path: String,
}

const USAGE: &str = "expected `mod NAME = \"PATH\"`, where PATH is relative to the folder of Cargo.toml";

fn parse(input: TokenStream) -> Result<Call, String> {
    let mut tokens = input.into_iter();
    let dunlin = tokens.next().ok_or(USAGE)?;
    let _semicolon = tokens.next();
    let mut before = Vec::new();
    loop {
        match tokens.next().ok_or(USAGE)? {
            TokenTree::Ident(ident) if ident.to_string() == "mod" => break,
            token => before.push(token),
        }
    }
    let name = tokens.next().filter(|name| matches!(name, TokenTree::Ident(_))).ok_or(USAGE)?;
    tokens.next().filter(|token| matches!(token, TokenTree::Punct(equals) if equals.as_char() == '=')).ok_or(USAGE)?;
    let mut path = tokens.next().ok_or(USAGE)?;
    // A literal that went through another macro comes in a group without delimiters.
    while let TokenTree::Group(group) = &path {
        path = group.stream().into_iter().next().ok_or(USAGE)?;
    }
    let TokenTree::Literal(path) = path else { return Err(USAGE.to_owned()) };
    if tokens.any(|token| !matches!(&token, TokenTree::Punct(end) if matches!(end.as_char(), ';' | ','))) {
        return Err(USAGE.to_owned());
    }
    Ok(Call { dunlin, before, name, path: text(&path).ok_or(USAGE)? })
}

/// The content of a string literal without escapes.
fn text(literal: &Literal) -> Option<String> {
    let literal = literal.to_string();
    let text = literal.strip_prefix('"')?.strip_suffix('"')?;
    if text.contains('\\') { None } else { Some(text.to_owned()) }
}

fn expand(input: TokenStream) -> Result<TokenStream, String> {
    let call = parse(input)?;
    let source = source::Source::read(&call.path)?;
    let body = model::module(&source).map_err(|error| format!("{}: {error}", source.path.display()))?;
    let body = body.parse::<TokenStream>().map_err(|error| format!("cannot expand {}: {error}", call.path))?;
    let mut module: Vec<TokenTree> =
        "#[allow(dead_code, unreachable_pub)]".parse::<TokenStream>().map_err(|e| e.to_string())?.into_iter().collect();
    module.extend(call.before);
    module.extend("mod".parse::<TokenStream>().map_err(|error| error.to_string())?);
    module.push(call.name);
    module.push(TokenTree::Group(Group::new(Delimiter::Brace, with_crate(body, &call.dunlin))));
    Ok(module.into_iter().collect())
}

/// Puts the path of `dunlin`, whatever it is called in the program, where the body says `__dunlin`.
fn with_crate(body: TokenStream, dunlin: &TokenTree) -> TokenStream {
    let replaced = |token| match token {
        TokenTree::Ident(ident) if ident.to_string() == "__dunlin" => dunlin.clone(),
        TokenTree::Group(group) => TokenTree::Group(Group::new(group.delimiter(), with_crate(group.stream(), dunlin))),
        token => token,
    };
    body.into_iter().map(replaced).collect()
}
