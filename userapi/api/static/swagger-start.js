"use strict";

window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: true,
  plugins: [window.SignInPlugin],
  tryItOutEnabled: true,
  validatorUrl: null,
});
