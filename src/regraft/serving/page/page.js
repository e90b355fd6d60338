// Pictures go to the server that gave this page, one at a time, and come back as labels with percentages.
"use strict";

const SHOWN = 5; // labels
const $ = (id) => document.getElementById(id);
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

const percent = (value) => `${(100 * value).toFixed(1)} %`;
const say = (text) => ($("status").textContent = text);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function bar({ label, probability }) {
  const fill = element("i");
  fill.style.width = `${100 * probability}%`;
  const drawn = element("div", { className: "bar" }, fill);
  drawn.setAttribute("aria-hidden", "true");
  return element("li", {}, element("span", {}, label), element("span", {}, percent(probability)), drawn);
}

function show(file, { label, top }) {
  const url = URL.createObjectURL(file);
  const picture = element("img", { src: url, alt: file.name });
  picture.addEventListener("error", () => picture.remove()); // a format that the server reads and this browser doesn't
  const heading = element("h2", {}, label || "none of the labels");
  $("results").prepend(element("article", {}, picture, heading, element("ul", {}, ...top.map(bar)), element("p", {}, file.name)));
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
$("files").addEventListener("change", async (event) => {
  await take([...event.target.files]);
  event.target.value = "";
});
$("model").addEventListener("change", describe);
$("clear").addEventListener("click", () => {
  for (const picture of document.images) URL.revokeObjectURL(picture.src);
  $("results").replaceChildren();
  $("clear").hidden = true;
  say("Ready.");
  $("files").focus();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take([...event.dataTransfer.files]);
});
addEventListener("hashchange", start);
document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
start();
