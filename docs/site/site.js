// The theme's script puts the button that copies a block of code into a landmark without a name: one for each block.
new MutationObserver(() => {
  for (const nav of document.querySelectorAll("nav.md-code__nav:not([role])")) {
    nav.setAttribute("role", "none");
    for (const button of nav.querySelectorAll("button")) button.setAttribute("aria-label", button.title);
  }
}).observe(document.documentElement, { childList: true, subtree: true });
