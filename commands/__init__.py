"""What each command does, between the command line and the rooms that do the work; imports are late and light."""
