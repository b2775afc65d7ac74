// A stand-in for the services that the orders service works beside: it names itself in every answer.
//
// NAME says whose place it takes; "client" shows a page, the others answer with JSON. With JWT_KEY it
// also signs users in, with the very cookie of the system's auth service: base64 of {"jwt": "..."}.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type user struct {
	ID    string `json:"id"`
	Email string `json:"email"`
}

type claims struct {
	user
	IssuedAt int64 `json:"iat"`
}

const jwtHeader = `{"alg":"HS256","typ":"JWT"}`

func signature(key, content string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(content))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func sign(key string, who user) (string, error) {
	payload, err := json.Marshal(claims{who, time.Now().Unix()})
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	content := encode([]byte(jwtHeader)) + "." + encode(payload)
	session, err := json.Marshal(map[string]string{"jwt": content + "." + signature(key, content)})
	return base64.StdEncoding.EncodeToString(session), err
}

// currentUser reads the session; anything wrong with it means that nobody is signed in.
func currentUser(key string, request *http.Request) *user {
	cookie, err := request.Cookie("session")
	if err != nil {
		return nil
	}
	session := struct{ JWT string }{}
	text, err := base64.StdEncoding.DecodeString(cookie.Value)
	if err != nil || json.Unmarshal(text, &session) != nil {
		return nil
	}
	end := strings.LastIndex(session.JWT, ".")
	if end < 0 || !hmac.Equal([]byte(signature(key, session.JWT[:end])), []byte(session.JWT[end+1:])) {
		return nil
	}
	_, payload, _ := strings.Cut(session.JWT[:end], ".")
	who := user{}
	text, err = base64.RawURLEncoding.DecodeString(payload)
	if err != nil || json.Unmarshal(text, &who) != nil {
		return nil
	}
	return &who
}

func answer(writer http.ResponseWriter, status int, body any) {
	writer.Header().Set("Content-Type", "application/json")
	writer.WriteHeader(status)
	if err := json.NewEncoder(writer).Encode(body); err != nil {
		log.Print(err)
	}
}

func handler(name, key string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(writer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(writer, "ok") })
	if key != "" {
		mux.HandleFunc("POST /api/users/signin", func(writer http.ResponseWriter, request *http.Request) {
			who := user{}
			if json.NewDecoder(http.MaxBytesReader(writer, request.Body, 10_000)).Decode(&who) != nil || who.Email == "" {
				answer(writer, http.StatusBadRequest, map[string]string{"message": `write {"email": "you@ticketing.dev"}`})
				return
			}
			digest := sha256.Sum256([]byte(who.Email))
			who.ID = hex.EncodeToString(digest[:12])
			session, err := sign(key, who)
			if err != nil {
				answer(writer, http.StatusInternalServerError, map[string]string{"message": err.Error()})
				return
			}
			http.SetCookie(writer, &http.Cookie{Name: "session", Value: session, Path: "/", HttpOnly: true})
			answer(writer, http.StatusOK, who)
		})
		mux.HandleFunc("GET /api/users/currentuser", func(writer http.ResponseWriter, request *http.Request) {
			answer(writer, http.StatusOK, map[string]*user{"currentUser": currentUser(key, request)})
		})
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
	server := &http.Server{Addr: ":" + port, Handler: handler(os.Getenv("NAME"), os.Getenv("JWT_KEY")), ReadHeaderTimeout: 5 * time.Second}
	ended, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
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
