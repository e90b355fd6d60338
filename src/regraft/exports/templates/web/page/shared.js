// What the page of an export and that of the server share: a result's parts, and pictures that are dropped or pasted.
"use strict";

const SHOWN = 5; // labels
const $ = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)} %`;
const say = (text) => ($("status").textContent = text);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function bar(label, probability) {
  const fill = element("i");
  fill.style.width = `${100 * probability}%`;
  const drawn = element("div", { className: "bar" }, fill);
  drawn.setAttribute("aria-hidden", "true");
  return element("li", {}, element("span", {}, label), element("span", {}, percent(probability)), drawn);
}

// Gives the pictures that are chosen, dropped or pasted to `take`.
function listen(take) {
  $("files").addEventListener("change", async (event) => {
    await take([...event.target.files]);
    event.target.value = "";
  });
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
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
}
