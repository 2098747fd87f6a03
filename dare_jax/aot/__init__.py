"""What compilers say of machines that are not here."""
