//! Plain values of a type, which a function may return in the place of what it computes.

use syn::{GenericArgument, PathArguments, PathSegment, ReturnType, Type};

/// Values of what a function returns, as text. None for what cannot be made up from the type alone.
#[must_use]
pub fn of_return(output: &ReturnType) -> Vec<String> {
    match output {
        ReturnType::Default => vec!["()".to_owned()],
        ReturnType::Type(_, ty) => of(ty),
    }
}

fn of(ty: &Type) -> Vec<String> {
    match ty {
        Type::Tuple(tuple) if tuple.elems.is_empty() => vec!["()".to_owned()],
        Type::Tuple(tuple) => together(tuple.elems.iter().map(of).collect()),
        Type::Paren(inner) => of(&inner.elem),
        Type::Path(path) => path.path.segments.last().map_or_else(Vec::new, of_named),
        Type::Reference(to) if to.mutability.is_none() => match &*to.elem {
            Type::Slice(_) => vec!["&[]".to_owned()],
            Type::Path(path) if path.path.is_ident("str") => vec![r#""""#.to_owned()],
            _ => Vec::new(),
        },
        Type::Array(_) => vec![default()],
        _ => Vec::new(),
    }
}

fn default() -> String {
    "Default::default()".to_owned()
}

fn of_named(segment: &PathSegment) -> Vec<String> {
    let within = |wrap: &str| -> Vec<String> {
        let inner = argument(segment).map_or_else(|| vec![default()], of);
        inner.into_iter().map(|value| format!("{wrap}({value})")).collect()
    };
    match &segment.ident.to_string()[..] {
        "bool" => words(&["true", "false"]),
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => words(&["0", "1"]),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => words(&["0", "1", "-1"]),
        "Result" => within("Ok"),
        "Option" => {
            let mut values = words(&["None"]);
            values.extend(within("Some"));
            values
        }
        _ => vec![default()],
    }
}

fn words(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The first type in angle brackets.
fn argument(segment: &PathSegment) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}

/// Tuples: the first values of all, then each other value of one place with the first ones of the rest.
fn together(places: Vec<Vec<String>>) -> Vec<String> {
    if places.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    let first: Vec<&str> = places.iter().map(|values| &values[0][..]).collect();
    let mut tuples = vec![first.clone()];
    for (at, values) in places.iter().enumerate() {
        for value in &values[1..] {
            let mut other = first.clone();
            other[at] = value;
            tuples.push(other);
        }
    }
    // A trailing comma, so that one place is a tuple too.
    tuples.iter().map(|values| format!("({},)", values.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::of_return;

    fn values(signature: &str) -> Vec<String> {
        let function: syn::ItemFn = syn::parse_str(&format!("fn f() {signature} {{}}")).expect("a function");
        of_return(&function.sig.output)
    }

    #[test]
    fn values_are_made_up_from_the_type() {
        assert_eq!(values(""), ["()"]);
        assert_eq!(values("-> Result<()>"), ["Ok(())"]);
        assert_eq!(values("-> io::Result<Option<u32>>"), ["Ok(None)", "Ok(Some(0))", "Ok(Some(1))"]);
        assert_eq!(values("-> (u8, bool)"), ["(0, true,)", "(1, true,)", "(0, false,)"]);
        assert_eq!(values("-> impl Iterator<Item = u8>"), [""; 0]);
        assert_eq!(values("-> &mut u8"), [""; 0]);
    }
}
