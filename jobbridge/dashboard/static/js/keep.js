// What a reader has done to a page stays when the page is fetched again: what they typed or chose, and what they opened.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const callbacks = window.Idiomorph?.defaults.callbacks;
  if (!callbacks) return;

  const isTouched = (node) => {
    switch (node.localName) {
      case "textarea":
        return node.value !== node.defaultValue;
      case "input":
        return node.type === "checkbox" || node.type === "radio"
          ? node.checked !== node.defaultChecked
          : node.type !== "hidden" && node.value !== node.defaultValue;
      case "select":
        return [...node.options].some((option) => option.selected !== option.defaultSelected);
      default:
        return false;
    }
  };

  // What scripts have added is not in what the server sends: drawn charts, buttons to copy.
  callbacks.beforeNodeRemoved = (node) => !(node instanceof Element && node.matches(".plot, .copy"));
  callbacks.beforeNodeMorphed = (node) => !(node instanceof Element && isTouched(node));
  callbacks.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && node.localName === "details") && !(name === "style" && node.matches(KEEPS_HEIGHT));
});

// What has become shorter keeps its place, so that what is below stays where it is.
const KEEPS_HEIGHT = "[data-keeps-height]";

document.addEventListener("htmx:beforeSwap", () => {
  for (const element of document.querySelectorAll(KEEPS_HEIGHT)) element.style.minHeight = `${element.offsetHeight}px`;
});

// Nothing polls while nobody looks.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden) event.preventDefault();
});

// Who is not signed in any more is asked to.
document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 401) location.reload();
});
