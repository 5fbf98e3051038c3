#include "driver.h"

const char *month_name(int month);

int main(int argc, char **argv)
{
    puts(month_name(atoi(argv[1])));
    return 0;
}
