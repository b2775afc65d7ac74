package main

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
)

func newID() string {
	id := make([]byte, 12)
	// Never fails.
	_, _ = rand.Read(id)
	return hex.EncodeToString(id)
}

// sellsTickets gives the routes of the tickets service.
func sellsTickets(mux *http.ServeMux, key string, heard *events) {
	mux.HandleFunc("POST /api/tickets", func(writer http.ResponseWriter, request *http.Request) {
		who, made := currentUser(key, request), ticket{}
		if who == nil {
			refuse(writer, http.StatusUnauthorized, "Not authorized")
			return
		}
		if !read(writer, request, &made) || made.Title == "" || made.Price <= 0 {
			refuse(writer, http.StatusBadRequest, `write {"title": "Concert", "price": 20}`)
			return
		}
		made = ticket{ID: newID(), Title: made.Title, Price: made.Price, UserID: who.ID}
		if err := heard.publish(request.Context(), "ticket:created", made); err != nil {
			refuse(writer, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(writer, http.StatusCreated, made)
	})
	mux.HandleFunc("GET /api/tickets/{id}", func(writer http.ResponseWriter, request *http.Request) {
		found, there := find(heard, heard.tickets, request.PathValue("id"))
		if !there {
			refuse(writer, http.StatusNotFound, "Not Found")
			return
		}
		answer(writer, http.StatusOK, found)
	})
}

// takesPayments gives the routes of the payments service, which charges nobody.
func takesPayments(mux *http.ServeMux, key string, heard *events) {
	mux.HandleFunc("POST /api/payments", func(writer http.ResponseWriter, request *http.Request) {
		who, wanted := currentUser(key, request), struct{ OrderID string }{}
		if who == nil {
			refuse(writer, http.StatusUnauthorized, "Not authorized")
			return
		}
		if !read(writer, request, &wanted) {
			refuse(writer, http.StatusBadRequest, `write {"orderId": "..."}`)
			return
		}
		known, there := find(heard, heard.orders, wanted.OrderID)
		switch {
		case !there:
			refuse(writer, http.StatusNotFound, "Not Found")
			return
		case known.UserID != who.ID:
			refuse(writer, http.StatusUnauthorized, "Not authorized")
			return
		case known.Status == "cancelled":
			refuse(writer, http.StatusBadRequest, "Cannot pay for a cancelled order")
			return
		}
		payment := map[string]string{"id": newID(), "orderId": wanted.OrderID, "stripeId": "none"}
		if err := heard.publish(request.Context(), "payment:created", payment); err != nil {
			refuse(writer, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(writer, http.StatusCreated, payment)
	})
}
