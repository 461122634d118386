//! Which parts of a source the build has: `cfg` with every feature, but no test and no loom.

use syn::{Attribute, Meta, Token, punctuated::Punctuated};

/// Whether what has these attributes is compiled, and is no test.
#[must_use]
pub fn compiled(attributes: &[Attribute]) -> bool {
    attributes.iter().all(|attribute| {
        if attribute.path().is_ident("test") {
            return false;
        }
        if !attribute.path().is_ident("cfg") {
            return true;
        }
        attribute.parse_args::<Meta>().map_or(true, |meta| holds(&meta))
    })
}

fn holds(meta: &Meta) -> bool {
    match meta {
        Meta::List(list) => {
            let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
            let parts = parts.unwrap_or_default();
            if list.path.is_ident("not") {
                !parts.iter().all(holds)
            } else if list.path.is_ident("any") {
                parts.iter().any(holds)
            } else {
                parts.iter().all(holds)
            }
        }
        Meta::Path(path) => !path.is_ident("test") && !path.is_ident("loom"),
        Meta::NameValue(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::compiled;

    fn of(condition: &str) -> bool {
        let item: syn::ItemFn =
            syn::parse_str(&format!("#[cfg({condition})] fn f() {{}}")).expect("a function");
        compiled(&item.attrs)
    }

    #[test]
    fn tests_and_what_features_exclude_are_not_compiled() {
        assert!(of(r#"feature = "write""#) && of("not(loom)") && of(r#"any(feature = "write", test)"#));
        assert!(!of("test") && !of("loom") && !of(r#"not(any(feature = "write", test))"#));
    }
}
