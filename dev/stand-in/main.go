// A stand-in for the services that the orders service works beside: it names itself in every answer.
//
// NAME says whose place it takes, and is that of its pod if it is left out. "client" shows a page, "auth" signs users in with the
// very cookie of the system's auth service (base64 of {"jwt": "..."}, signed with JWT_KEY), "tickets" and "payments" sell tickets
// and take payments. With NATS_URL these two speak with the orders service by the system's events; what they know is what they
// have heard.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func answer(writer http.ResponseWriter, status int, body any) {
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(status)
	if err := json.NewEncoder(writer).Encode(body); err != nil {
		log.Print(err)
	}
}

func refuse(writer http.ResponseWriter, status int, message string) {
	answer(writer, status, map[string]string{"message": message})
}

func read(writer http.ResponseWriter, request *http.Request, body any) bool {
	return json.NewDecoder(http.MaxBytesReader(writer, request.Body, 10_000)).Decode(body) == nil
}

func handler(name, key string, neighbours *events) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(writer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(writer, "ok") })
	switch {
	case name == "auth" && key != "":
		signsIn(mux, key)
	case name == "tickets" && neighbours != nil:
		sellsTickets(mux, key, neighbours)
	case name == "payments" && neighbours != nil:
		takesPayments(mux, key, neighbours)
	}
	mux.HandleFunc("/", func(writer http.ResponseWriter, request *http.Request) {
		if name == "client" {
			writer.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(writer, "<!doctype html><html lang=en><title>Ticketing</title><h1>Ticketing</h1>"+
				"<p>This is the stand-in for the web client, at <code>%s</code>.</html>\n", html.EscapeString(request.URL.Path))
			return
		}
		answer(writer, http.StatusOK, map[string]string{"service": name, "method": request.Method, "path": request.URL.Path})
	})
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		writer.Header().Set("X-Stand-In", name)
		mux.ServeHTTP(writer, request)
	})
}

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "3000"
	}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	name, neighbours := os.Getenv("NAME"), (*events)(nil)
	if name == "" {
		name, _ = os.Hostname()
	}
	if url := os.Getenv("NATS_URL"); url != "" && (name == "tickets" || name == "payments") {
		neighbours = listen(ended, url, name)
	}
	server := &http.Server{Addr: ":" + port, Handler: handler(name, os.Getenv("JWT_KEY"), neighbours), ReadHeaderTimeout: 5 * time.Second}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		<-ended.Done()
		grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(grace); err != nil {
			log.Print(err)
		}
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	// The listener is closed at once, but answers may be on their way.
	<-drained
}
