//! Prints the JSON Schema of policy documents, for editors and validators:
//! `cargo run --example schema > examples/data/policy.schema.json`

fn main() -> Result<(), serde_json::Error> {
    println!("{}", serde_json::to_string_pretty(&toolgate::Policy::json_schema())?);
    Ok(())
}
