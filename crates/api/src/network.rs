//! Networks.

use cata_engine::request::CreateNetwork;
use cata_spec::Name;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::container::create::endpoint;
use crate::fields::Fields;
use crate::refusal::{Outcome, Refusal};
use crate::shared::Server;

/// `GET /networks`.
pub(crate) fn list(server: &Server, call: &Call) -> Outcome<Answer> {
    let filters = call.filters(&["driver", "id", "label", "name", "scope", "type", "dangling"])?;
    let mut list = Vec::new();
    for network in server.engine.network_list()? {
        let builtin = matches!(network.name.as_str(), "bridge" | "host" | "none");
        let fits = filters.any("driver", |wanted| network.driver.as_str() == wanted)
            && filters.any("id", |wanted| network.id.starts_with(wanted))
            && filters.any("name", |wanted| network.name.as_str().contains(wanted.trim_matches(['^', '$'])))
            && filters.any("scope", |wanted| wanted == "local")
            && filters.any("type", |wanted| (wanted == "builtin") == builtin)
            && filters.labels(&network.labels);
        if fits {
            let mut document = server.engine.network_inspect(network.name.as_str())?;
            let lone = document["Containers"].as_object().is_none_or(serde_json::Map::is_empty);
            if filters.any("dangling", |wanted| matches!(wanted, "true" | "1") == (lone && !builtin)) {
                document["Containers"] = json!({});
                list.push(document);
            }
        }
    }
    Answer::ok(json!(list))
}

/// `GET /networks/{id}`.
pub(crate) fn inspect(server: &Server, id: &str) -> Outcome<Answer> {
    let network = server.engine.network(id).map_err(|error| missing(error, id))?;
    Answer::ok(server.engine.network_inspect(network.name.as_str())?)
}

fn missing(error: cata_engine::Error, id: &str) -> Refusal {
    match error.kind() {
        cata_engine::Kind::NotFound => Refusal::missing(format!("network {id} not found")),
        _ => error.into(),
    }
}

/// `POST /networks/create`.
pub(crate) fn create(server: &Server, mut call: Call) -> Outcome<Answer> {
    let mut fields = Fields::new("", call.document()?)?;
    let name = fields.text("Name")?.ok_or_else(|| Refusal::invalid("network name cannot be empty"))?;
    let mut ipam = fields.within("IPAM")?;
    let (mut subnets, mut gateways, mut ip_ranges) = (Vec::new(), Vec::new(), Vec::new());
    for mut pool in ipam.objects("Config")? {
        subnets.extend(pool.text("Subnet")?);
        gateways.extend(pool.text("Gateway")?);
        ip_ranges.extend(pool.text("IPRange")?);
        pool.finish()?;
    }
    if ipam.text("Driver")?.is_some_and(|driver| driver != "default") {
        return Err(Refusal::unsupported("an IPAM driver other than default"));
    }
    ipam.finish()?;
    if fields.value("EnableIPv4") == Value::Bool(false) {
        return Err(Refusal::unsupported("a network without IPv4"));
    }
    if fields.text("Scope")?.is_some_and(|scope| scope != "local") {
        return Err(Refusal::unsupported("a network of a scope other than local"));
    }
    let request = CreateNetwork {
        name: Name::parse(&name).map_err(|e| Refusal::invalid(e.to_string()))?,
        driver: fields.text("Driver")?.unwrap_or_else(|| "bridge".to_owned()),
        subnets,
        gateways,
        ip_ranges,
        internal: fields.flag("Internal")?,
        ipv6: fields.flag("EnableIPv6")?,
        labels: fields.texts("Labels")?.into_iter().collect(),
        options: fields.texts("Options")?.into_iter().collect(),
    };
    // Names are unique whatever clients ask. Whether others may join matters in swarms.
    fields.ignore(&["CheckDuplicate", "Attachable"]);
    fields.finish()?;
    let network = server.engine.network_create(&request)?;
    Ok(Answer::Document(StatusCode::CREATED, json!({ "Id": network.id, "Warning": "" })))
}

/// `DELETE /networks/{id}`.
pub(crate) fn remove(server: &Server, id: &str) -> Outcome<Answer> {
    let network = server.engine.network(id).map_err(|error| missing(error, id))?;
    server.engine.network_remove(network.name.as_str())?;
    Answer::done()
}

/// `POST /networks/{id}/connect`.
pub(crate) fn connect(server: &Server, mut call: Call, id: &str) -> Outcome<Answer> {
    let network = server.engine.network(id).map_err(|error| missing(error, id))?;
    let mut fields = Fields::new("", call.document()?)?;
    let container = fields.text("Container")?.ok_or_else(|| Refusal::invalid("no container is named"))?;
    let wish = endpoint(network.name.as_str(), fields.value("EndpointConfig"), None)?;
    fields.finish()?;
    // The answer has no place for what the host could not give.
    let _ = server.engine.network_connect(network.name.as_str(), &container, wish)?;
    Answer::ok(Value::Null)
}

/// `POST /networks/{id}/disconnect`.
pub(crate) fn disconnect(server: &Server, mut call: Call, id: &str) -> Outcome<Answer> {
    let network = server.engine.network(id).map_err(|error| missing(error, id))?;
    let mut fields = Fields::new("", call.document()?)?;
    let container = fields.text("Container")?.ok_or_else(|| Refusal::invalid("no container is named"))?;
    let force = fields.flag("Force")?;
    fields.finish()?;
    server.engine.network_disconnect(network.name.as_str(), &container, force)?;
    Answer::ok(Value::Null)
}

/// `POST /networks/prune`.
pub(crate) fn prune(server: &Server, call: &Call) -> Outcome<Answer> {
    let filter = call.filters(&["until", "label", "label!"])?.prune()?;
    Answer::ok(json!({ "NetworksDeleted": server.engine.network_prune(&filter)?.removed }))
}
