//! More people than the administrator.

use serde_json::{Value, json};

use crate::world::{PASSWORD, World};

impl World {
    /// A tenant of this kind.
    pub async fn tenant(&self, name: &str, kind: &str) -> Value {
        let form = json!({ "name": name, "kind": kind });
        let token = self.token().await;
        let answer = self.post("/api/v1/tenants").bearer_auth(token).json(&form);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }

    /// The token of a new member of a tenant.
    pub async fn member(&self, name: &str, tenant: &str, role: &str) -> String {
        let form = json!({ "name": name, "password": PASSWORD, "tenant": tenant, "role": role });
        let token = self.token().await;
        let answer = self.post("/api/v1/users").bearer_auth(token).json(&form);
        assert_eq!(answer.send().await.unwrap().status(), 201);
        let form = json!({ "user_name": name, "password": PASSWORD });
        let answer = self.post("/api/v1/tokens").json(&form).send().await;
        let token: Value = answer.unwrap().json().await.unwrap();
        token["token"].as_str().unwrap().to_owned()
    }

    pub async fn ask(&self, token: &str, path: &str) -> Value {
        let answer = self.get(path).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }
}
