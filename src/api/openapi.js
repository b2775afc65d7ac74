SwaggerUIBundle({
  url: "/api/orders/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  // The session's cookie goes with what is tried out; nothing is sent to anyone else's validator.
  withCredentials: true,
  validatorUrl: null,
});
