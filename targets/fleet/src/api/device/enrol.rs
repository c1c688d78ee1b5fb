//! `POST /d/v1/enrol`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{postcard, read, text};
use crate::api::input::Body;
use crate::auth::{Enroller, signed_by};
use crate::error::{ApiError, ApiResult};
use crate::server::App;
use crate::store::{audit, devices, signed, tenants};
use crate::{hex, wire};

/// A device's id: the beginning of SHA-256 over tenant and key. So enrolling again gives the same.
fn id(tenant: &str, key: &[u8; 32]) -> [u8; 16] {
    let hash = Sha256::new_with_prefix(tenant).chain_update([0]).chain_update(key).finalize();
    let mut id = [0; 16];
    id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    id
}

pub(super) async fn enrol(
    State(app): State<App>,
    Enroller(principal): Enroller,
    headers: HeaderMap,
    Body(body): Body,
) -> ApiResult<Response> {
    let settings = &principal.tenant.settings;
    let request: wire::Enrol = read(&body)?;
    text("target", &request.target, 64)?;
    text("model", &request.model, 64)?;
    if request.attributes.len() > 32 {
        return Err(ApiError::bad("a device has at most 32 attributes", "leave some out"));
    }
    for (name, value) in &request.attributes {
        text("attribute", name, 64)?;
        text("attribute", value, 256)?;
    }
    let signature = headers.get(wire::SIGNATURE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !signed_by(&request.key, &wire::message("POST", "/d/v1/enrol", "0", &body), signature) {
        return Err(ApiError::unauthorized(
            "the enrolment is not signed by the key that it brings",
            "sign it with the nonce 0",
        ));
    }
    let tenant = principal.tenant.id.as_str();
    let device = id(tenant, &request.key);
    let now = signed(app.clock.seconds());
    let mut tx = app.store.write().await?;
    if devices::revoked(&mut tx, tenant, &hex(&device)).await?.is_some() {
        return Err(ApiError::forbidden(
            "a device with this key was revoked",
            "give the device a new key, if it should come back",
        ));
    }
    if devices::enrol(&mut tx, tenant, &hex(&device), &request.key, &request, now).await? {
        // Each enrolment locks the tenant's row by its audit entry, so that the count is right.
        let detail = json!({ "target": request.target, "model": request.model });
        audit::append(&mut tx, tenant, now, &principal.name, "device.enrol", &hex(&device), &detail).await?;
        let most = settings.max_devices;
        if !app.allowance.take(tenant, most) {
            let total = devices::total(&mut tx, tenant).await?;
            if total > most {
                return Err(ApiError::quota("devices", most));
            }
            app.allowance.counted(tenant, most, total);
        }
    }
    let roots = tenants::roots(&mut tx, tenant).await?;
    tx.commit().await?;
    postcard(&wire::Enrolled { device, roots })
}
