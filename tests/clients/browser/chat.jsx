// A chat as a product would have it: useChat and React, nothing of ours but the history.
import { useChat } from "@ai-sdk/react";
import { DefaultChatTransport } from "ai";
import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const headers = { authorization: `Bearer ${localStorage.getItem("token")}` };
const transport = new DefaultChatTransport({ api: `${SERVER}/api/chat`, headers });

async function api(method, path, body) {
  const json = body && { "content-type": "application/json" };
  const answer = await fetch(SERVER + path, { method, headers: { ...headers, ...json }, body: body && JSON.stringify(body) });
  return answer.json();
}

/** The chat that the address names, or a new one, with what was said in it. */
async function open() {
  const place = new URL(location);
  if (!place.searchParams.has("chat")) {
    const { id } = await api("POST", "/api/conversations", {});
    place.searchParams.set("chat", id);
    history.replaceState(null, "", place);
  }
  const id = place.searchParams.get("chat");
  const { data } = await api("GET", `/api/conversations/${id}/messages`);
  // What is still being said is heard from its beginning.
  const said = data.filter(({ status }) => status !== "streaming");
  const messages = said.map(({ id, role, content, status }) => ({ id, role, parts: [{ type: "text", text: content }], metadata: { status } }));
  return { id, messages };
}

const notes = { truncated: "This answer was cut off.", failed: "There is no answer.", stopped: "You stopped this answer." };

function Page() {
  const [chat, setChat] = useState();
  useEffect(() => void open().then(setChat), []);
  return chat ? <Chat {...chat} /> : <p>One moment</p>;
}

function Chat(chat) {
  const { messages, sendMessage, status, error } = useChat({ ...chat, transport, resume: true });
  const [question, setQuestion] = useState("");
  const send = (event) => {
    event.preventDefault();
    sendMessage({ text: question });
    setQuestion("");
  };
  return (
    <main>
      {messages.map(({ id, role, parts, metadata }) => (
        <article key={id} aria-label={role} lang="en">
          <p>{parts.map(({ text }) => text)}</p>
          {notes[metadata?.status] && <small>{notes[metadata.status]}</small>}
        </article>
      ))}
      {error && <p role="alert">{error.message}</p>}
      <output>{status}</output>
      <form onSubmit={send}>
        <input aria-label="Question" value={question} onChange={(event) => setQuestion(event.target.value)} />
        <button>Ask</button>
      </form>
      <button onClick={() => api("POST", `/api/chat/${chat.id}/stop`)}>Stop</button>
    </main>
  );
}

createRoot(document.getElementById("page")).render(<Page />);
