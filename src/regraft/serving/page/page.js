// Pictures go to the server that gave this page, one at a time, and come back as labels with percentages.
"use strict";

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    $("ask").hidden = false;
    $("token").focus();
  }
  const data = await answer.json();
  if (!Array.isArray(data) && data.error) throw new Error(data.error);
  return data;
}

function show(file, { label, top }) {
  const url = URL.createObjectURL(file);
  const picture = element("img", { src: url, alt: file.name });
  picture.addEventListener("error", () => picture.remove()); // a format that the server reads and this browser doesn't
  const heading = element("h2", {}, label || "none of the labels");
  $("results").prepend(element("article", {}, picture, heading, element("ul", {}, ...top.map(({ label, probability }) => bar(label, probability))), element("p", {}, file.name)));
  $("clear").hidden = false;
  return `${file.name}: ${label || "none of the labels"}, ${percent(top[0].probability)}`;
}

async function take(files) {
  for (const file of files) {
    say(`Looking at ${file.name} …`);
    const path = `predict?top=${SHOWN}&model=${encodeURIComponent($("model").value)}`;
    try {
      const [item] = await ask(path, { method: "POST", body: file });
      say(item.status === "ok" ? show(file, item) : `${file.name} can't be read as a picture: ${item.error}`);
    } catch (error) {
      say(`${file.name}: ${error.message}`);
    }
  }
}

async function describe() {
  const { classes } = await ask(`model?model=${encodeURIComponent($("model").value)}`);
  $("title").textContent = classes.length > 6 ? `Which of ${classes.length} is it?` : `${classes.slice(0, -1).join(", ")} or ${classes.at(-1)}?`;
}

function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname); // not to be read over a shoulder, or kept in the history
  $("ask").hidden = true;
}

async function start() {
  takeToken();
  try {
    const names = await ask("models");
    $("model").replaceChildren(...names.map((name) => element("option", {}, name)));
    $("which").hidden = names.length < 2;
    await describe();
    say("Ready.");
  } catch (error) {
    say(error.message);
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value.trim());
  $("ask").hidden = true;
  start();
});
$("model").addEventListener("change", describe);
listen(take);
addEventListener("hashchange", start);
start();
