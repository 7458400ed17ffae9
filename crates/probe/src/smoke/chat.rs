//! A question in each form that clients ask it in, and what is kept of it.
use super::walk::Walk;
use serde_json::json;

impl Walk {
    pub async fn chat(&mut self, token: &str) {
        let body = json!({"message": "Say hello in one sentence."});
        let answer = self.post("/api/chat", token, &body).await;
        let right = answer.status == 200
            && answer.has_text(&["/response", "/conversationId", "/messageId"])
            && answer.body["usage"].is_object();
        let expected = "200 with response, usage, ids";
        self.note("POST /api/chat", expected, &answer, right);
        let conversation = answer.text_at("/conversationId").to_owned();

        let body = json!({"message": "Once more, please.", "stream": true});
        let mut answer = self.post("/api/chat", token, &body).await;
        let names: Vec<_> = event_names(&answer.text);
        let last = *names.last().unwrap_or(&"none");
        let right = answer.status == 200 && last == "finish";
        if answer.status == 200 {
            answer.text = format!("{} events, last {last}", names.len());
        }
        let expected = "200, events up to finish";
        self.note("POST /api/chat, stream", expected, &answer, right);

        let models = self.get("/v1/models", token).await;
        let model = match models.text_at("/data/0/id") {
            "" => "gpt-4o-mini",
            model => model,
        };
        let body = json!({"model": model, "messages": [{"role": "user", "content": "Hello?"}]});
        let answer = self.post("/v1/chat/completions", token, &body).await;
        let right = answer.status == 200
            && answer.text_at("/object") == "chat.completion"
            && answer.has_text(&[
                "/id",
                "/choices/0/message/content",
                "/choices/0/finish_reason",
            ])
            && answer.body["usage"]["total_tokens"].is_u64();
        let expected = "200 chat.completion";
        self.note("POST /v1/chat/completions", expected, &answer, right);

        let answer = self.get("/api/conversations", token).await;
        let data = answer.body["data"].as_array().cloned().unwrap_or_default();
        let kept = data.iter().any(|one| one["id"] == conversation.as_str());
        let right = answer.status == 200 && kept;
        let expected = "200, has the one above";
        self.note("GET /api/conversations", expected, &answer, right);

        let answer = self.get("/api/usage", token).await;
        let used = answer.body.pointer("/messages/used");
        let right = answer.status == 200 && used.is_some_and(|used| *used == json!(3));
        self.note("GET /api/usage", "200, 3 messages used", &answer, right);
    }
}

/// Of server-sent events, in order.
fn event_names(stream: &str) -> Vec<&str> {
    let lines = stream.lines();
    lines
        .filter_map(|line| line.strip_prefix("event:").map(str::trim))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_is_known_by_its_name() {
        let stream = ": open\n\nevent: start\ndata: {}\n\nid: 1\nevent:finish\ndata: {}\n\n";
        assert_eq!(event_names(stream), ["start", "finish"]);
    }
}
