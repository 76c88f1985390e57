"""Tables, rows and their preparation: everything between a party's file and its first tensor."""
