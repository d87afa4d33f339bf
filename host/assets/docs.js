// Everything comes from this origin; what the reader would fetch from elsewhere is turned off.
Scalar.createApiReference("#reader", {
  url: "/openapi.json",
  withDefaultFonts: false,
  telemetry: false,
  proxyUrl: "",
  hideClientButton: true,
  agent: { disabled: true },
  mcp: { disabled: true },
});
