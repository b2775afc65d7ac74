package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
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

// signsIn gives the routes of the auth service, which believes whoever names an address.
func signsIn(mux *http.ServeMux, key string) {
	mux.HandleFunc("POST /api/users/signin", func(writer http.ResponseWriter, request *http.Request) {
		who := user{}
		if !read(writer, request, &who) || who.Email == "" {
			refuse(writer, http.StatusBadRequest, `write {"email": "you@ticketing.dev"}`)
			return
		}
		digest := sha256.Sum256([]byte(who.Email))
		who.ID = hex.EncodeToString(digest[:12])
		session, err := sign(key, who)
		if err != nil {
			refuse(writer, http.StatusInternalServerError, err.Error())
			return
		}
		http.SetCookie(writer, &http.Cookie{Name: "session", Value: session, Path: "/", HttpOnly: true})
		answer(writer, http.StatusOK, who)
	})
	mux.HandleFunc("GET /api/users/currentuser", func(writer http.ResponseWriter, request *http.Request) {
		answer(writer, http.StatusOK, map[string]*user{"currentUser": currentUser(key, request)})
	})
}
