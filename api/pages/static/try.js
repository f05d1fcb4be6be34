// A query, searched in one or two embeddings: what both have found is marked with its rank on the other side.

import { call } from "./page.js";

const form = document.getElementById("try");
const place = document.getElementById("found");
let asked = 0;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function column(title, found, others) {
  const made = element("section");
  made.append(element("h2", title), element("p", found.model, "quiet"));
  const list = element("ol", undefined, "hits");
  for (const hit of found.hits) {
    const item = element("li");
    const head = element("p", undefined, "quiet");
    head.append(element("b", hit.id), ` ${hit.score.toFixed(4)} `);
    if (others) {
      const rank = others.findIndex((other) => other.id === hit.id) + 1;
      head.append(element("span", rank ? `there: ${rank}` : "not there", "label"));
    }
    item.append(head, element("p", hit.text ?? "(the embeddings have no texts)"));
    list.append(item);
  }
  made.append(list);
  return made;
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const mine = ++asked;
  const query = document.getElementById("query").value.trim();
  const where = [...form.querySelectorAll("[data-in]")].filter((field) => field.value);
  if (!query) return;
  place.replaceChildren(element("p", "Searching; the first search of a model loads it …", "quiet"));
  try {
    const found = [];
    for (const field of where) {
      found.push(await call("POST", "search", { embeddings: `artifact:${field.value}`, query }));
    }
    if (mine !== asked) return;
    const titles = where.map((field) => field.selectedOptions[0].textContent);
    place.replaceChildren(...found.map((one, at) => column(titles[at], one, found[1 - at]?.hits)));
  } catch (problem) {
    if (mine === asked) place.replaceChildren(element("p", problem.message, "notice error"));
  }
});
