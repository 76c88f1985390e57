"""What hides numbers from other parties: group arithmetic and comparing what it has hidden."""
