SwaggerUIBundle({
  url: "/api/orders/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  // Requests from the page carry the session cookie; the description is not sent to an online validator.
  withCredentials: true,
  validatorUrl: null,
});
