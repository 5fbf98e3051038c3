static const char *const MONTHS[] = {
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
};

/* Name of a month from 1 to 12, and "?" for any other number. */
const char *month_name(int month)
{
